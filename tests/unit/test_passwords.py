"""Hashes are checked with the library that will check them in the image: crypt(3)."""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import sys
from pathlib import Path

import pytest

from amphora_mkimage import passwords
from amphora_mkimage.errors import BadValueError

LIBCRYPT = ctypes.CDLL(ctypes.util.find_library("crypt"))
LIBCRYPT.crypt.restype = ctypes.c_char_p


def matches(password: str, digest: str) -> bool:
    return bool(LIBCRYPT.crypt(password.encode(), digest.encode()) == digest.encode())


@pytest.mark.parametrize(
    "password", ["a", "correct horse battery staple", "pässwörd ✓", "it's $HOME;\\", "x" * 200, "-"]
)
def test_a_hash_is_accepted_by_crypt_for_its_password_only(password: str) -> None:
    digest = passwords.hash_password(password)
    assert digest.startswith("$y$")
    assert matches(password, digest)
    assert not matches(password + "x", digest)
    assert passwords.check_hash(digest) == digest


def test_salted() -> None:
    assert passwords.hash_password("same") != passwords.hash_password("same")


@pytest.mark.parametrize("password", ["", "a\nb", "a\0b", "a\r"])
def test_no_password(password: str) -> None:
    with pytest.raises(BadValueError):
        passwords.hash_password(password)


@pytest.mark.parametrize("prefix", [b"$y$", b"$gy$", b"$7$", b"$2b$", b"$6$", b"$5$"])
def test_hashes_of_each_accepted_method(prefix: bytes) -> None:
    salt = ctypes.create_string_buffer(384)
    LIBCRYPT.crypt_gensalt_rn.restype = ctypes.c_char_p
    setting = LIBCRYPT.crypt_gensalt_rn(prefix, ctypes.c_ulong(0), None, 0, salt, 384)
    digest = LIBCRYPT.crypt(b"secret", setting).decode()
    assert passwords.check_hash(digest) == digest


@pytest.mark.parametrize(
    "given",
    [
        "",
        "secret",
        "*",
        "!",
        "$y$",
        "$1$abcdefgh$0123456789012345678901",  # MD5
        "$6$salt$short",
        "$6$" + "a" * 40 + ":0:0",  # would add fields to /etc/shadow
        "$6$" + "a" * 40 + "\nroot2::0:0",
        "$6$" + "a" * 40 + " ",
    ],
)
def test_what_is_no_hash_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(BadValueError) as caught:
        passwords.check_hash(given)
    assert len(given) < 5 or given not in f"{caught.value.what} {caught.value.remedy}"


def test_read_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" spaces count \r\nsecond line\n")
    assert passwords.read_password(str(file)) == " spaces count "
    monkeypatch.setattr(sys, "stdin", io.StringIO("from stdin\n"))
    assert passwords.read_password("-") == "from stdin"
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadValueError, match="it is not text"):
        passwords.read_password(str(file))
    with pytest.raises(BadValueError, match="No such file"):
        passwords.read_password(str(tmp_path / "absent"))
