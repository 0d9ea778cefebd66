"""Throw-away OpenPGP keys and what they sign, made by real gpg."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: When the keys were made, so that there is time in which they, or what they sign, can expire.
_BIRTH = "20240101T000000!"


class Signer:
    """A key of its own home.

    :param expires: as gpg's quick-generate-key has it; "never", or "1d" for one that has expired long ago
    """

    def __init__(self, place: Path, name: str, *, expires: str = "never") -> None:
        self.home = place / name
        self.home.mkdir(mode=0o700, parents=True)
        self._gpg("--faked-system-time", _BIRTH, "--quick-generate-key", f"{name} <{name}@example.invalid>", "ed25519",
                  "sign", expires)  # fmt: skip
        listing = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def public(self, *, armour: bool = True) -> bytes:
        return self._gpg(*(["--armor"] if armour else []), "--export")

    def detached(self, content: bytes, *options: str) -> bytes:
        return self._gpg(*options, "--output", "-", "--detach-sign", "-", content=content)

    def clear(self, content: bytes, *options: str) -> bytes:
        return self._gpg(*options, "--output", "-", "--clearsign", "-", content=content)

    def revoke(self) -> None:
        """Import the certificate that gpg makes along with each key, and disarms by a colon."""
        certificate = self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev"
        self._gpg("--import", content=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False)

    def _gpg(self, *arguments: str, content: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", "--passphrase", ""]
        return subprocess.run([*argv, *arguments], input=content, capture_output=True, check=True).stdout


#: Options by which a signature, or the use of a key, falls into the time when the keys were young.
IN_THE_PAST = ("--faked-system-time", _BIRTH)
EXPIRED = (*IN_THE_PAST, "--default-sig-expire", "1d")
