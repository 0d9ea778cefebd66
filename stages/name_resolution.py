"""No name is ever looked up by an amphora, so no DHCP server can slow it down or mislead it by a resolver.

One nameserver line stays, with an address where nobody answers: dnspython, which the agent imports through eventlet,
refuses to load without one.
"""

from __future__ import annotations

import re

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install, put


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Fix resolv.conf, keep dhclient's hands off it, and take DNS out of the name service switch."""
    guest.rm_f("/etc/resolv.conf")  # it may be a link to a resolver's own file
    install(guest, "etc/resolv.conf")
    if not is_redhat(request):  # which has one file in place of the directory, see the stage "redhat"
        install(guest, "etc/dhcp/dhclient-enter-hooks.d/noresolvconf", 0o755)
        guest.rm_f("/etc/dhcp/dhclient-enter-hooks.d/resolvconf")
    switch = guest.read_file("/etc/nsswitch.conf").decode()
    # nss-resolve(8), where it is installed, has an action after it: "resolve [!UNAVAIL=return] dns".
    without_dns = re.sub(r"(?<=^hosts:)(.*)$", _without_dns, switch, flags=re.MULTILINE)
    put(guest, "/etc/nsswitch.conf", without_dns.encode())


def _without_dns(services: re.Match[str]) -> str:
    return re.sub(r"[ \t]+(resolve([ \t]+\[[^]]*\])?|dns)(?![-\w])", "", services[0])
