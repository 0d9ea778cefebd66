"""SSH on the management addresses only, with host keys made at first boot.

An amphora's other addresses belong to load balancers, whose listeners may use port 22. Where the management addresses
come from differs (the config drive, DHCP, router advertisements), and some come late: so a service follows the
addresses of the system's network namespace, and tells sshd. The agent has its own namespace for all others.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install

_SERVICE = "amphora-ssh-addresses"
#: Octavia's element of that name edits sshd_config at each lease; an image of one's own may have it.
_FORMER_HOOK = "/etc/dhcp/dhclient-enter-hooks.d/rebind-sshd"


def applies(request: Request) -> bool:
    """Unless -n left the server out."""
    return request.ssh


def run(guest: Guest, request: Request) -> None:
    """Install the service, and what a root password needs to be of use."""
    guest.rm_f(_FORMER_HOOK)
    install(guest, f"usr/local/sbin/{_SERVICE}", 0o755)
    install(guest, f"usr/lib/systemd/system/{_SERVICE}.service")
    if not is_redhat(request):
        # Ubuntu's is started by a socket, which listens where a generator read that it should, once.
        guest.command(["systemctl", "disable", "ssh.socket"])
        guest.command(["systemctl", "enable", "ssh.service"])
    guest.command(["systemctl", "enable", f"{_SERVICE}.service"])
    if request.root_password_hash:
        install(guest, "etc/ssh/sshd_config.d/50-amphora-root-password.conf")
