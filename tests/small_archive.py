"""Signed archives without a package file, by real gpg and apt-ftparchive: for what apt reads before packages."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from signing import Signer

#: A package that nobody fetches: apt keeps no index that is empty.
_NOTHING = f"""\
Package: nothing
Version: 1
Architecture: all
Maintainer: nobody
Filename: ./nothing.deb
Size: 1
SHA256: {"0" * 64}
"""


def date(seconds: float) -> str:
    """A date of a Release file, so many seconds from now."""
    return time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + seconds))


def write(root: Path, suites: Sequence[str], signer: Signer, *options: str, arch: str = "amd64", **fields: str) -> None:
    """Write suites below a directory.

    :param options: of gpg
    :param fields: more of the Release file, ``Valid_Until`` among them
    """
    for suite in suites:
        place = root / "dists" / suite
        for component in ("main", "universe"):
            (place / f"{component}/binary-{arch}").mkdir(parents=True)
            (place / f"{component}/binary-{arch}/Packages").write_text(_NOTHING)
        told = {"Suite": suite, "Codename": suite, "Components": "main universe", "Architectures": arch}
        settings = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in told.items()]
        argv = ["apt-ftparchive", *settings, "release", str(place)]
        release = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        for key, value in fields.items():
            name = key.replace("_", "-")
            release = "".join(line for line in release.splitlines(keepends=True) if not line.startswith(f"{name}:"))
            release = f"{name}: {value}\n{release}"
        (place / "InRelease").write_bytes(signer.clear(release.encode(), *options))
