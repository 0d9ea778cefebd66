#!/bin/sh
# logrotate: with dateext a maximal size bounds nothing beyond the first rotation of a day.
#
# A guess: "maxsize 1M" and a timer that fires every few minutes keep a log at 1 MB and what is written between two looks.
# What happens: Red Hat's /etc/logrotate.conf has dateext, whose default format is the day alone. The second rotation of a day finds
# its name taken, says "already exists, skipping rotation", ends with status 1, and the log grows until midnight. dateformat with
# %s (or hours) mends it; distributions without dateext (Debian) never see it.
# Where it bites: whoever makes logrotate.timer hourly for a busy haproxy.log, on a rpm distribution.
set -eu
version=3.21.0-1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
apt-get download -q "logrotate=$version" > /dev/null
dpkg -x logrotate_*.deb root
cat > conf <<CONF
daily
rotate 7
dateext
maxsize 1M
$place/haproxy.log {
    compress
}
CONF
chmod 644 conf

# rotate CONF: fill the log, and rotate it; prints what is left of it.
rotate() {
    head -c 2097152 /dev/zero > haproxy.log
    "root/usr/sbin/logrotate" --state state "$1" 2>> errors && status=0 || status=$?
    size=$(stat -c %s haproxy.log 2> /dev/null || echo 0)
    echo "logrotate $version, $1: status $status, haproxy.log has $size bytes after it"
}
: > errors
rotate conf
[ "$status" = 0 ] && [ "$size" = 0 ]
rotate conf
cat errors
[ "$status" = 1 ] && [ "$size" = 2097152 ]
grep -q 'already exists, skipping rotation' errors
sed 's/^dateext/dateext\ndateformat -%Y%m%d-%s/' conf > conf-with-seconds
chmod 644 conf-with-seconds
rotate conf-with-seconds
sleep 1.1
rotate conf-with-seconds
[ "$status" = 0 ] && [ "$size" = 0 ]
