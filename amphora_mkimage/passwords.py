"""The root password: read, hashed at once, and never kept in any other form.

Python lost its ``crypt`` module in 3.13 (PEP 594), so libxcrypt is called directly: crypt(3), crypt_gensalt(3).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import sys
from pathlib import Path

from amphora_mkimage.errors import BadValueError, HostError

#: yescrypt, the default of Debian (since 11), Ubuntu (22.04) and Fedora (35); crypt(5).
_METHOD = b"$y$"
#: What crypt(5) calls a hash: method prefix, then parameters, salt and digest of printable ASCII without ":" ";" "*"
#: "!" "\\".
_HASH = re.compile(r"\$(y|gy|7|2[abxy]|6|5)\$[!-9<-\[\]-~]{20,400}")
_OUTPUT_SIZE = 384  # CRYPT_OUTPUT_SIZE and CRYPT_GENSALT_OUTPUT_SIZE are both below it


def hash_password(password: str) -> str:
    """Give the salted yescrypt hash of a password.

    :raises BadValueError: the password is empty or has a NUL or line break in it
    :raises HostError: there is no libcrypt that knows yescrypt
    """
    if not password:
        raise BadValueError("the root password is empty", "leave -r out to keep the root account locked")
    if set(password) & {"\0", "\n", "\r"}:
        raise BadValueError("the root password has a line break or NUL in it")
    name = ctypes.util.find_library("crypt")
    if name is None:
        raise HostError("libcrypt is not installed, so no password can be hashed", "pass --root-password-hash instead")
    library = ctypes.CDLL(name, use_errno=True)
    salt = ctypes.create_string_buffer(_OUTPUT_SIZE)
    library.crypt_gensalt_rn.restype = ctypes.c_char_p
    setting = library.crypt_gensalt_rn(_METHOD, ctypes.c_ulong(0), None, 0, salt, _OUTPUT_SIZE)
    if setting is None:
        raise HostError("this host's libcrypt does not know yescrypt", "pass --root-password-hash instead")
    library.crypt.restype = ctypes.c_char_p
    digest: bytes | None = library.crypt(password.encode(), setting)
    if digest is None or digest.startswith(b"*"):
        raise HostError("libcrypt could not hash the root password", "pass --root-password-hash instead")
    return digest.decode("ascii")


def check_hash(given: str) -> str:
    """Accept a ready crypt(5) hash of a method that is not broken, and return it.

    :raises BadValueError: it is none; the message does not repeat it
    """
    if not _HASH.fullmatch(given):
        raise BadValueError(
            "--root-password-hash: not a crypt(5) hash of an accepted method ($y$ $gy$ $7$ $2b$ $6$ $5$)",
            "make one with `mkpasswd` and quote it for the shell",
        )
    return given


def read_password(source: str) -> str:
    """Read a password from the first line of a file, or of standard input for ``-``.

    :raises BadValueError: it cannot be read
    """
    try:
        if source == "-":
            line = sys.stdin.readline()
        else:
            with Path(source).open(encoding="utf-8") as file:
                line = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadValueError(f"--root-password-file: cannot read {source}: {reason}") from error
    return line.rstrip("\r\n")
