if [ "$1" -eq 1 ]; then
    systemd-machine-id-setup >/dev/null 2>&1 || :
    systemctl --no-reload preset-all >/dev/null 2>&1 || :
fi
