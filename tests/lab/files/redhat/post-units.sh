if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload preset @UNITS@ >/dev/null 2>&1 || :
fi
