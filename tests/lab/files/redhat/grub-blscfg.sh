# Red Hat's GRUB reads BLS entries itself, and its 10_linux leaves the menu to it.
if [ "x${GRUB_ENABLE_BLSCFG}" = xtrue ]; then
    printf 'insmod blscfg\nblscfg\n'
    exit 0
fi
