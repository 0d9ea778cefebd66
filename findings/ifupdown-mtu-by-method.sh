#!/bin/bash
# ifupdown: an interface's "mtu" is applied for a static IPv4 address, and lost for a static IPv6 one.
#
# A guess: "mtu 1450" in an interfaces(5) stanza sets the interface's MTU, whatever the method; where a method does not know the
# option, ifup says so. What happens: inet static sets it; inet6 static, which documents the option too, raises the link's MTU, but
# to lower it sets net.ipv6.conf.IFACE.mtu before it brings the link up, which resets that, so that link and IPv6 stay at 1500;
# inet6 auto (and inet dhcp) take the option without a word and do nothing with it.
# Where it bites: cloud-init writes the MTU of an overlay network into the first stanza whatever its method. Small packets pass,
# full ones do not: TLS handshakes hang. A DHCP server that sends option 26, or a router that advertises an MTU, hides it.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
apt-get -q download ifupdown=0.8.41
dpkg -x ./*.deb tree
cat > interfaces <<'EOF'
iface v4 inet static
    address 192.0.2.1/24
    mtu 1450
iface v6 inet6 static
    address 2001:db8::1/64
    mtu 1450
iface auto6 inet6 auto
    mtu 1450
EOF
cat > try <<'EOF'
mount -t sysfs sysfs /sys
for name in v4 v6 auto6; do
    ip link add "$name" type veth peer name "p-$name"
    ip link set "p-$name" up
    mkdir -p "state.$name"
    PATH="$PWD/tree/sbin:$PATH" ifup --no-scripts --interfaces=interfaces --state-dir="state.$name" "$name"
    echo "$name: status $?, link $(ip -o link show "$name" | sed 's/.* mtu \([0-9]*\) .*/\1/'), IPv6 $(sysctl -n "net.ipv6.conf.$name.mtu")"
done
EOF
dpkg-deb -f ./*.deb Package Version
unshare --user --map-root-user --net --mount sh try | tee found
printf '%s\n' "v4: status 0, link 1450, IPv6 1450" "v6: status 0, link 1500, IPv6 1500" "auto6: status 0, link 1500, IPv6 1500" > expected
diff expected found
