"""NetworkManager brings up what cloud-init wrote, and nothing else.

It would configure every interface that it sees by DHCP, among them those that the agent takes into its own network
namespace; and it would write /etc/resolv.conf (Octavia's elements/amphora-agent has both files, too).
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install

_CONNECTIONS = (
    "/etc/NetworkManager/system-connections/*",
    "/etc/sysconfig/network-scripts/ifcfg-*",  # read by the plugin ifcfg-rh until RHEL 9
)


def applies(request: Request) -> bool:
    """Red Hat's family."""
    return is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Remove connections of the base image, and install the configuration."""
    for pattern in _CONNECTIONS:
        for path in guest.glob_expand(pattern):
            if not path.endswith("/ifcfg-lo"):
                guest.rm_rf(path)
    for name in ("dns-none.conf", "no-auto-default.conf"):
        install(guest, f"etc/NetworkManager/conf.d/{name}")
