"""How an appliance reaches what this host reaches: names that only the host knows, and the host's own loopback.

The appliance's network is qemu's or passt's: it opens connections as this host would and asks the host's nameserver.
What neither knows is written down here: the host's /etc/hosts, the domains in which it looks up short names, and that
the host's loopback, where a proxy or a mirror may listen, has another address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path

#: Where the appliance finds the loopback of this host: the network's gateway (libguestfs' NETWORK_ADDRESS).
GATEWAY = "169.254.2.2"
#: Files of the guest that are others while there is a network.
FILES = ("/etc/resolv.conf", "/etc/hosts")

_LOOPBACK = re.compile(r"(?P<before>://(?:[^/@\s]*@)?)(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?=[:/?#\s]|$)", re.I)
_LOCAL_NAMES = re.compile(r"localhost\d*(\.localdomain\d*)?|ip6-(localhost|loopback)", re.IGNORECASE)
_SIZE_LIMIT = 1 << 20


def address(urls: str) -> str:
    """Give URLs of this host as the appliance has to write them.

    A name other than "localhost" stays as it is, because a certificate may have it; see :func:`hosts`.
    """
    return _LOOPBACK.sub(rf"\g<before>{GATEWAY}", urls)


def of_host() -> dict[str, bytes]:
    """Give, by file of :data:`FILES`, what the guest is to have besides the appliance's nameserver."""
    return {"/etc/resolv.conf": domains(_read("/etc/resolv.conf")), "/etc/hosts": hosts(_read("/etc/hosts"))}


def hosts(text: str) -> bytes:
    """Give the names of the host's /etc/hosts, with the gateway for what is the host itself."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for line in text.splitlines():
        place, *names = line.partition("#")[0].split() or [""]
        names = [name for name in names if not _LOCAL_NAMES.fullmatch(name)]
        with contextlib.suppress(ValueError):  # a line that is none, which resolvers pass over, too
            here = ipaddress.ip_address(place).is_loopback
            if names:
                lines.append(" ".join([GATEWAY if here else place, *names]))
    return "".join(f"{line}\n" for line in lines).encode()


def domains(text: str) -> bytes:
    """Give the lines of the host's resolv.conf(5) that say how names are looked up, without those that say where."""
    lines = [line for line in text.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "".join(f"\n{line}\n" for line in lines).encode()


def _read(name: str) -> str:
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return file.read(_SIZE_LIMIT)
    except OSError:
        return ""
