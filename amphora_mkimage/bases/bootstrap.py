"""Make a root filesystem with mmdebstrap from packages that are already here and verified.

mmdebstrap does the bootstrapping, as root of the namespace that the build runs in; what is ours is around it:
documentation and translations are never written, and the work that dozens of packages trigger one by one
(byte-compiling Python, collecting CA certificates, making the initramfs) is done once, at the end, side by side. See
docs/time.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.bases import unpacked
from amphora_mkimage.bases.apt import FILES, UNREAD, UNREAD_FILE
from amphora_mkimage.bases.archive import Archive, Deb, fetching
from amphora_mkimage.bases.base import Made
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import key_of
from amphora_mkimage.guest import userns
from amphora_mkimage.workplace import Workplace

HOOKS = Path(__file__).with_name("hooks")


def key(debs: Sequence[Deb], arch: str, release: str, sources: str) -> str:
    """Give the cache key of a bootstrapped system: a hash over everything that went into it.

    :param sources: the sources.list text, which stays in the tree
    """
    programs = (Path(__file__), *sorted((HOOKS / "bootstrap").iterdir()), *sorted(FILES.iterdir()))
    return key_of(arch, release, sources, *UNREAD, *(deb.sha256 for deb in debs), *map(Path.read_bytes, programs))


def make(
    place: Workplace,
    archive: Archive,
    packages: Sequence[str],
    release: str,
    arch: str,
    check_size: Callable[[int], None],
) -> Made:
    """Make the tree, from the cache or by a bootstrap. The network is gone afterwards.

    :param packages: names of all wanted packages
    :param check_size: raises where that many bytes will not fit on the disk
    """
    console = place.console
    with console.step("read the package archive"):
        archive.update()
        debs = archive.resolve(["?essential", "apt", *packages])
        check_size(sum(deb.installed_size for deb in debs))
    made = key(debs, arch, release, archive.sources)
    kept = place.store.checked_base(made)
    if kept is not None:
        unpacked.finished(place, kept)
        return Made(made, cached=True)
    with fetching(archive, debs, place.store, console):
        # All that came from outside is here and verified: nothing that runs in the image ever gets the network.
        userns.without_network()
        with console.step("bootstrap"):
            bootstrap(place.tree, archive, packages, release, arch, console)
    shutil.rmtree(archive.directory)
    with console.step("cache the base"):
        place.pack(made)
    return Made(made, cached=False)


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
        '--aptopt=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"',
        f"--include={','.join(packages)}",
        f"--hook-dir={HOOKS / 'bootstrap'}",
        release,
        os.fspath(root),
        os.fspath(archive.directory / "sources.list"),
    ]
    unread = root.with_name("unread")
    unread.write_text("".join(f"{line}\n" for line in UNREAD), encoding="ascii")
    env = process.environment(
        {
            "TMPDIR": os.fspath(root.parent),
            "AMPHORA_APT": os.fspath(archive.directory),
            "AMPHORA_FILES": os.fspath(FILES),
            "AMPHORA_UNREAD": os.fspath(unread),
            "AMPHORA_UNREAD_FILE": UNREAD_FILE,
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
