#!/bin/sh
# lvs-masquerade.sh add|delete ipv4|ipv6 INTERFACE [sriov]
#
# The agent calls it by this path when it plugs an interface (octavia/amphorae/backends/utils/interface_file.py). UDP and
# SCTP, which IPVS forwards, leave with the amphora's address; TCP, which HAProxy ends, is not tracked at all, except on
# SR-IOV ports, whose rules of their own need the connection state.
#
# Each interface has chains of its own, so that "delete" takes nothing from another one, and both verbs may be repeated.
set -eu

usage() {
    echo "Usage: ${0##*/} add|delete ipv4|ipv6 INTERFACE [sriov]" >&2
    exit 1
}

[ $# -ge 3 ] && [ -n "$3" ] || usage
case $1 in add | delete) action=$1 ;; *) usage ;; esac
interface=$3
sriov=${4:-}
case $2 in
ipv4) family=ip table=octavia-ipv4 iptables=iptables ;;
ipv6) family=ip6 table=octavia-ipv6 iptables=ip6tables ;;
*) usage ;;
esac

chain() { # name, type, hook and priority: there, and empty
    echo "add chain $family $table $1 { type $2; }"
    echo "flush chain $family $table $1"
}

rules() { # one transaction of nft(8)
    echo "add table $family $table"
    chain "masquerade-$interface" "nat hook postrouting priority 100"
    chain "untracked-in-$interface" "filter hook prerouting priority -300"
    chain "untracked-out-$interface" "filter hook output priority -300"
    if [ "$action" = add ]; then
        echo "add rule $family $table masquerade-$interface oifname \"$interface\" meta l4proto { udp, sctp } masquerade"
    fi
    if [ "$action" = add ] && [ "$sriov" != sriov ]; then
        echo "add rule $family $table untracked-in-$interface iifname \"$interface\" meta l4proto tcp notrack"
        echo "add rule $family $table untracked-out-$interface oifname \"$interface\" meta l4proto tcp notrack"
    else
        echo "delete chain $family $table untracked-in-$interface"
        echo "delete chain $family $table untracked-out-$interface"
    fi
    if [ "$action" = delete ]; then
        echo "delete chain $family $table masquerade-$interface"
    fi
}

rule() { # table and rule of iptables(8), which may be there already, or not
    t=$1
    shift
    if [ "$action" = add ]; then
        "$iptables" -w -t "$t" -C "$@" 2>/dev/null || "$iptables" -w -t "$t" -A "$@"
    else
        "$iptables" -w -t "$t" -D "$@" 2>/dev/null || true
    fi
}

if command -v nft >/dev/null; then
    rules | nft -f -
else
    for protocol in udp sctp; do
        rule nat POSTROUTING -p "$protocol" -o "$interface" -j MASQUERADE
    done
    if [ "$sriov" != sriov ] || [ "$action" = delete ]; then
        rule raw PREROUTING -p tcp -i "$interface" -j CT --notrack
        rule raw OUTPUT -p tcp -o "$interface" -j CT --notrack
    fi
fi
