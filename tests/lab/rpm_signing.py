"""Throw-away OpenPGP keys, and what is signed with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path


class Key:
    """A signing key without a passphrase.

    gpg works in a directory of its own under /tmp, because its agent's socket must fit into a sockaddr_un (unix(7)),
    and a path deep under a cache directory does not.

    :param place: directory with the key's files; made, and the key with it, when it is not there
    """

    def __init__(self, place: Path, name: str) -> None:
        self._place = place
        self._directory = tempfile.TemporaryDirectory(prefix="lab-gpg-")
        self.home = Path(self._directory.name)
        secret = place / "secret.asc"
        if secret.exists():
            self.gpg("--import", secret)
            return
        place.mkdir(parents=True, exist_ok=True)
        # RSA, because every rpm that is in use reads it.
        self.gpg("--quick-generate-key", f"{name} <lab@example.invalid>", "rsa2048", "sign", "never")
        self.gpg("--armor", "--output", self.public, "--export")
        self.gpg("--armor", "--output", secret, "--export-secret-keys")

    @property
    def public(self) -> Path:
        """The public key, armoured."""
        return self._place / "public.asc"

    @property
    def fingerprint(self) -> str:
        """Its fingerprint, 40 hexadecimal digits."""
        listing = self.gpg("--with-colons", "--list-keys")
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def gpg(self, *arguments: object) -> str:
        """Run gpg(1) on this home."""
        argv = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--yes", "--passphrase", ""]
        done = subprocess.run([*argv, *map(str, arguments)], check=True, capture_output=True, text=True)
        return done.stdout

    def clearsign(self, text: str, target: Path) -> None:
        """Write a text with its signature around it."""
        plain = target.with_name(f"{target.name}.plain")
        plain.write_text(text, encoding="utf-8")
        self.gpg("--digest-algo", "SHA256", "--output", target, "--clearsign", plain)
        plain.unlink()

    def sign_rpms(self, rpms: list[Path]) -> None:
        """Put signatures into RPMs, as rpmsign(8) does."""
        # Debian's rpm looks for gpg under a name that its GnuPG does not install.
        settings = {"__gpg": shutil.which("gpg"), "_gpg_path": self.home, "_gpg_name": self.fingerprint}
        defines = [word for name, value in settings.items() for word in ("--define", f"{name} {value}")]
        subprocess.run(["rpmsign", *defines, "--addsign", *map(str, rpms)], check=True, capture_output=True)

    def stop(self) -> None:
        """End the agent that gpg started, and remove its directory."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"], check=False, capture_output=True)
        self._directory.cleanup()
