"""SSH on the management address only, with host keys made at first boot.

An amphora's other addresses belong to load balancers, whose listeners may use port 22. When dhclient has its lease,
sshd is told to listen on that address alone.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Unless -n left the server out."""
    return request.ssh


def run(guest: Guest, request: Request) -> None:
    """Install the hook, and what a root password needs to be of use."""
    if not is_redhat(request):  # there NetworkManager has a DHCP client of its own, without such hooks
        install(guest, "etc/dhcp/dhclient-enter-hooks.d/rebind-sshd", 0o755)
    if request.root_password_hash:
        install(guest, "etc/ssh/sshd_config.d/50-amphora-root-password.conf")
