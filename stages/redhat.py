"""What Red Hat's family has in other places, or calls otherwise, than Debian's.

It comes after the stages that install the common files.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import FILES, put

#: dnf's own timers: an amphora resolves no names, is replaced and never updated in place.
_MASKED = ("dnf-makecache.timer", "dnf-automatic.timer", "dnf-automatic-install.timer")
_GROUP = "var/lib/octavia/haproxy-default-user-group.conf"


def applies(request: Request) -> bool:
    """Red Hat's family."""
    return is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Set HAProxy's group, the directory of its log socket, dhclient's hook and the timers."""
    # The agent shares HAProxy's control socket with the group that HAProxy runs as (Octavia's
    # elements/haproxy-octavia); "nogroup" is Debian's.
    put(guest, f"/{_GROUP}", (FILES / _GROUP).read_bytes().replace(b"nogroup", b"haproxy"))
    guest.mkdir_p("/var/lib/haproxy/dev")  # Debian's package makes it
    if guest.is_dir("/etc/dhcp"):
        # One file and not a directory of them, unlike Debian's (dhclient-script(8)).
        hook = (FILES / "etc/dhcp/dhclient-enter-hooks.d/noresolvconf").read_bytes()
        put(guest, "/etc/dhcp/dhclient-enter-hooks", hook, 0o755)
    guest.command(["systemctl", "disable", "haproxy.service"])
    guest.command(["systemctl", "mask", *_MASKED])
