"""Make a root filesystem with mmdebstrap from packages that are already here and verified.

mmdebstrap does the bootstrapping, as root of the namespace that the build runs in; what is ours is around it:
documentation and translations are never written, and the work that dozens of packages trigger one by one
(byte-compiling Python, collecting CA certificates, making the initramfs) is done once, at the end, side by side. See
docs/time.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import __version__, process
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console

HOOKS = Path(__file__).with_name("hooks")

#: What no amphora reads. Copyright files stay: redistribution asks for them (deb-policy 12.5).
_UNWANTED = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)


def key(debs: Sequence[Deb], arch: str, release: str, sources: str) -> str:
    """Give the cache key of a bootstrapped system: a hash over everything that went into it.

    :param sources: the sources.list text, which stays in the tree
    """
    digest = hashlib.sha256()
    parts = [__version__, arch, release, sources, *(deb.sha256 for deb in debs)]
    parts += [file.read_text(encoding="utf-8") for file in (Path(__file__), *sorted((HOOKS / "bootstrap").iterdir()))]
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def bootstrap(root: Path, archive: Archive, packages: Sequence[str], release: str, arch: str, console: Console) -> None:
    """Bootstrap into an empty directory.

    :param root: the directory; must not exist
    :param archive: updated, with every package downloaded
    :param packages: names of all wanted packages
    :raises MkimageError: a package could not be installed
    """
    argv = [
        "mmdebstrap",
        "--verbose",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--architectures={arch}",
        # It would want the program arch-test; what it would find out is known (guest/foreign.py).
        "--skip=check/qemu",
        # The indexes are here already; mmdebstrap's own clean-up of lists and archives is left on.
        "--skip=update",
        *(f"--dpkgopt={option}" for option in _UNWANTED),
        '--aptopt=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"',
        f"--include={','.join(packages)}",
        f"--hook-dir={HOOKS / 'bootstrap'}",
        release,
        os.fspath(root),
        os.fspath(archive.directory / "sources.list"),
    ]
    env = process.environment(
        {
            "TMPDIR": os.fspath(root.parent),
            # The kernel's postinst makes no initramfs (initramfs-tools' kernel hook reads this); our last hook does.
            "INITRD": "No",
            "AMPHORA_APT": os.fspath(archive.directory),
        }
    )

    def show(line: str) -> None:
        if line.startswith(("Unpacking ", "Setting up ", "Selecting ", "Processing ")):
            console.activity(line.split(" (", 1)[0].lower())

    process.run(
        argv,
        console,
        what="cannot bootstrap the base system",
        remedy="the log has every line that dpkg printed",
        env=env,
        on_line=show,
    )
