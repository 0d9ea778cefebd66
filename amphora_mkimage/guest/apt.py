"""Install Debian packages in a guest from files that the host fetched and verified, without any network.

The host's :class:`~amphora_mkimage.bases.archive.Archive` has resolved and downloaded; what of it the guest may see
goes into a directory of its own, which either guest then shows it read-only. apt in the guest resolves again, from the
same indexes, and finds every package there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.guest.protocol import Guest

#: Where the guest sees what :func:`offer` made; under /run, of which nothing stays.
OFFERED = "/run/offered"
_ARCHIVES = f"{OFFERED}/archives"

_POLICY = "/usr/sbin/policy-rc.d"
_FILES = Path(__file__).with_name("files")


def offer(archive: Archive, debs: Sequence[Deb], directory: Path, console: Console) -> None:
    """Put packages into a directory to be offered to a guest, with an index of them and nothing else.

    Not the archive's own indexes: apt in the guest would read 50 MB of them, minutes under emulation. And nothing of
    what lies beside them: not the mirror's credentials.

    :param archive: with the packages downloaded
    :param directory: made; best on the filesystem of the archive, because files are linked where that is possible
    """
    for part in ("archives", "lists"):
        (directory / part).mkdir(parents=True)
        (directory / part / "partial").mkdir(mode=0o700)  # apt looks whether it is there
    stanzas = []
    for deb in debs:
        target = directory / "archives" / deb.file_name
        _link(archive.archives / deb.file_name, target)
        control = process.run(["dpkg-deb", "--field", os.fspath(target)], console, what="cannot read a package")
        stanzas.append(f"{control}\nFilename: ./{deb.file_name}\nSize: {deb.size}\nSHA256: {deb.sha256}\n")
    # What "apt-get update" would make of the index of a repository without structure at this place (sources.list(5)).
    index = directory / "lists" / f"{_ARCHIVES.replace('/', '_')}_._Packages"
    index.write_text("\n".join(stanzas), encoding="utf-8")
    # Trusted, because the host has checked the archive's signature and the hash of each file.
    (directory / "sources.list").write_text(f"deb [trusted=yes] file:{_ARCHIVES} ./\n", encoding="ascii")


def install(guest: Guest, packages: Sequence[str]) -> None:
    """Install packages in a guest that is mounted and where the directory that :func:`offer` made is shown.

    No service is started.

    :raises MkimageError: apt or a package's script failed
    """
    options = {
        "Dir::Etc::SourceList": f"{OFFERED}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": f"{OFFERED}/lists",
        "Dir::Cache::Archives": f"{OFFERED}/archives",
        "Debug::NoLocking": "true",  # the archives are on a read-only filesystem, and nobody else is here
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Dpkg::Use-Pty": "false",
        "Dpkg::Options::": "--force-unsafe-io",  # a build that is cut short is thrown away
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    own_policy = not guest.exists(_POLICY)
    if own_policy:
        guest.write(_POLICY, (_FILES / "policy-rc.d").read_bytes())
        guest.chmod(0o755, _POLICY)
    guest.command(["apt-get", "-y", "-q", "--no-download", *words, "install", *packages])
    if own_policy:
        guest.rm_f(_POLICY)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copyfile(source, target)
