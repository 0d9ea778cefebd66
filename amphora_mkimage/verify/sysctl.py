"""Kernel settings of an amphora, and sysctl.d(5)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

#: What Octavia's elements/haproxy-octavia writes. Kept here once more on purpose: the checks must not learn from the
#: builder what is right.
EXPECTED = {
    "fs.file-max": "2600000",
    "fs.nr_open": "2600000",
    "net.core.netdev_max_backlog": "100000",
    "net.core.rmem_max": "67108864",
    "net.core.somaxconn": "65534",
    "net.core.wmem_max": "67108864",
    "net.ipv4.ip_local_port_range": "1025 65534",
    "net.ipv4.ip_nonlocal_bind": "1",
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.tcp_fin_timeout": "5",
    "net.ipv4.tcp_keepalive_time": "300",
    "net.ipv4.tcp_max_orphans": "5800000",
    "net.ipv4.tcp_max_syn_backlog": "100000",
    "net.ipv4.tcp_max_tw_buckets": "5800000",
    "net.ipv4.tcp_mtu_probing": "1",
    "net.ipv4.tcp_rmem": "4096 87380 33554432",
    "net.ipv4.tcp_synack_retries": "3",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_wmem": "4096 87380 33554432",
    "net.ipv6.ip_nonlocal_bind": "1",
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait": "5",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "5",
}

#: What hardening roles set and an amphora must not have: the value, what it costs, and whether it is then useless.
#: net.ipv4.ip_forward is not among them: the agent's unit sets it after it has applied all files
#: (octavia/amphorae/backends/agent/api_server/templates/amphora-netns.systemd.j2).
UNWANTED = {
    r"net\.ipv6\.conf\.(?:all|default)\.disable_ipv6": (
        "1",
        "IPv6 addresses of load balancers and members fail",
        False,
    ),
    r"net\.ipv4\.conf\.(?:all|default)\.rp_filter": (
        "1",
        "what comes in on another way than it goes out is dropped",
        False,
    ),
    r"kernel\.modules_disabled": ("1", "no module can be loaded any more", True),
    r"user\.max_net_namespaces": ("0", "the agent cannot make its network namespace", True),
}

#: Where the files lie, by precedence; a file shadows those of the same name further down (sysctl.d(5)).
DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")


def parse(text: str) -> dict[str, str]:
    """Read the settings of a file, as they are written; slashes in keys become dots."""
    settings = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        key, separator, value = stripped.partition("=")
        if separator:
            settings[key.strip().lstrip("-").replace("/", ".")] = value.strip()
    return settings


def order(paths: Iterable[str]) -> list[str]:
    """Put the files of all directories in the order in which they are applied: the last one that sets a key wins."""
    chosen: dict[str, str] = {}
    for path in sorted(paths, key=lambda p: DIRECTORIES.index(posixpath.dirname(p))):
        chosen.setdefault(posixpath.basename(path), path)
    return [chosen[name] for name in sorted(chosen)]


def same(one: str, other: str) -> bool:
    """Compare values as the kernel reads them: numbers between any white space."""
    return one.split() == other.split()
