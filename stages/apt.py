"""Package sources, as an administrator of the amphora would find them.

The bootstrap leaves its sources.list with the host's keyring path in it; the image gets one deb822 file
(sources.list(5)) that names its own keyring. Credentials never were in it. The rules that kept documentation out
stay, under a name that says whose they are.
"""

from __future__ import annotations

import re

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import put

_LINE = re.compile(r"deb (?:\[[^]]*\] )?(\S+) (\S+) (.+)")


def applies(request: Request) -> bool:
    """Debian's family."""
    return not is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Rewrite the sources and name the rules."""
    old = guest.glob_expand("/etc/apt/sources.list.d/*.list")
    entries: dict[tuple[str, str], list[str]] = {}
    for line in "".join(guest.read_file(path).decode() for path in old).splitlines():
        match = _LINE.match(line)
        if match:
            entries.setdefault((match[1], match[3]), []).append(match[2])
    stanzas = [
        f"Types: deb\nURIs: {url}\nSuites: {' '.join(suites)}\n"
        f"Components: {components}\nSigned-By: {request.base.keyring}\n"
        for (url, components), suites in entries.items()
    ]
    put(guest, f"/etc/apt/sources.list.d/{request.base.distribution}.sources", "\n".join(stanzas).encode())
    for path in old:
        guest.rm_f(path)
    guest.rm_f("/etc/apt/apt.conf.d/99mmdebstrap")
    put(guest, "/etc/apt/apt.conf.d/90-amphora-no-recommends", b'APT::Install-Recommends "false";\n')
