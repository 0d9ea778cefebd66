"""The root account: locked, or with the password that was asked for, as its hash.

The field of shadow(5) is written directly: chpasswd(8) and usermod(8) would have the hash in an argv or in a log.
"""

from __future__ import annotations

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request

_SHADOW = "/etc/shadow"
_LOCKED = "*"  # no password can ever match it (shadow(5))


def applies(request: Request) -> bool:
    """Every image: what is not asked for is locked."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Set root's field; file mode and owner stay."""
    lines = guest.read_file(_SHADOW).decode().splitlines()
    for number, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == "root":
            fields[1] = request.root_password_hash or _LOCKED
            lines[number] = ":".join(fields)
            break
    else:
        raise MkimageError("the image has no root account in /etc/shadow")
    guest.write(_SHADOW, ("\n".join(lines) + "\n").encode())
    guest.rm_f(f"{_SHADOW}-")  # the copy that passwd's tools keep
