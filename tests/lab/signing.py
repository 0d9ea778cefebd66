"""Throw-away keys, as the upstreams of the lab sign with."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Signer:
    """A key of its own.

    :param place: made; the public key is ``keyring`` below it
    :param expires: as gpg takes it ("1y", "seconds=1")
    """

    def __init__(self, place: Path, name: str = "lab", expires: str = "1y") -> None:
        self.home = place / "gnupg"
        self.keyring = place / "keyring.gpg"
        if not self.keyring.exists():
            self.home.mkdir(parents=True, mode=0o700)
            self._gpg("--quick-generate-key", f"{name} <{name}@example.invalid>", "ed25519", "sign", expires)
            self._gpg("--output", self.keyring, "--export")

    def clearsign(self, source: Path, target: Path) -> None:
        self._gpg("--output", target, "--clearsign", source)

    def detach(self, source: Path, target: Path) -> None:
        self._gpg("--output", target, "--detach-sign", source)

    def close(self) -> None:
        """End the agent that gpg started."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False)

    def _gpg(self, *arguments: object) -> None:
        options = ["--homedir", self.home, "--batch", "--quiet", "--yes", "--passphrase", ""]
        subprocess.run(["gpg", *options, *map(str, arguments)], check=True, capture_output=True)
