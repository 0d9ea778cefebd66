getent group @ACCOUNT@ >/dev/null || groupadd -r @ACCOUNT@
getent passwd @ACCOUNT@ >/dev/null ||
    useradd -r -g @ACCOUNT@ -d /var/lib/@ACCOUNT@ -s /usr/sbin/nologin @ACCOUNT@
exit 0
