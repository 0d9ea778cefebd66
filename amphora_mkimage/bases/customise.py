"""Make a base from a root filesystem that the distribution publishes, or from one of the user's own.

It is unpacked once and kept in the cache; then brought up to date, and given the packages of an amphora, by its own apt
from packages that are already here and verified.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.bases import apt, dpkg, unpacked
from amphora_mkimage.bases.archive import Archive, Deb, fetching
from amphora_mkimage.bases.base import Made, Wish
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.fetch.store import key_of
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.stages import inherited
from amphora_mkimage.workplace import Workplace

#: Kernels, and the metapackages that would bring their next versions along.
_KERNEL = re.compile(r"linux-image-\S+")
_KEYRINGS = "usr/share/keyrings"
#: What a finished base depends on besides its packages.
_PROGRAMS = (Path(__file__), Path(apt.__file__), Path(inherited.__file__), inherited.TABLE)
#: Opens the archive against a status file, with a keyring when the host has none.
OpenArchive = Callable[[Path, Path], Archive]


@dataclass(frozen=True)
class Resolved:
    """What that takes.

    :param archive: updated
    :param debs: packages to fetch
    :param removed: names of installed packages that go
    :param sources: text of sources.list(5) for the image
    :param key: of the finished base in the cache
    """

    archive: Archive
    debs: Sequence[Deb]
    removed: Sequence[str]
    sources: str
    key: str


def make(
    place: Workplace, image: BaseImage, open_archive: OpenArchive, wish: Wish, check_size: Callable[[int], None]
) -> Made:
    """Make the tree. The network is gone afterwards.

    :param check_size: raises where that many bytes will not fit on the disk
    :raises MkimageError: the image is of another system, or a package cannot be had or installed
    """
    console, store = place.console, place.store
    snapshot = unpacked.snapshot(place, image)
    found = resolve(place, image, snapshot, open_archive, wish, check_size)
    facts_of_image = {"image": image.obtained.facts}
    kept = store.checked_base(found.key)
    if kept is not None:
        unpacked.finished(place, kept)
        return Made(found.key, cached=True, facts=facts_of_image)
    with fetching(found.archive, found.debs, store, console):
        # All that came from outside is here and verified: nothing that runs in the image ever gets the network.
        userns.without_network()
        unpacked.tree(place, snapshot)
        offered = place.directory / "offered"
        apt.offer(found.archive, found.debs, offered, console)
        with console.step("install packages"):
            _install_in_namespace(place, offered, wish, found)
    shutil.rmtree(offered)
    shutil.rmtree(found.archive.directory)
    with console.step("cache the base"):
        place.pack(found.key)
    return Made(found.key, cached=False, facts=facts_of_image)


def resolve(
    place: Workplace,
    image: BaseImage,
    snapshot: Path,
    open_archive: OpenArchive,
    wish: Wish,
    check_size: Callable[[int], None],
) -> Resolved:
    """Look into a snapshot, and ask the archive what has to be fetched; runs nothing of the image.

    :param check_size: raises where that many bytes will not fit on the disk
    :raises MkimageError: the image is of another system, or a package cannot be had
    """
    facts = place.directory / "facts"
    place.extract(snapshot, (dpkg.STATUS, unpacked.OS_RELEASE, _KEYRINGS), facts)
    identity = unpacked.inside(facts, unpacked.OS_RELEASE).read_text(encoding="utf-8")
    unpacked.check_identity(identity, wish.base, wish.release)
    here = dpkg.installed(unpacked.inside(facts, dpkg.STATUS))
    with place.console.step("read the package archive"):
        archive = open_archive(facts / dpkg.STATUS, unpacked.inside(facts, wish.base.keyring))
        archive.update()
        names = {package.name for package in here}
        removed = _removed(names, wish.unwanted, wish.kernel, archive.dependencies(wish.kernel))
        words = [*wish.wanted, *(f"{name}-" for name in removed)]
        debs = archive.resolve(words, command="dist-upgrade")
    stay = {package.name: package.size for package in here} | {deb.name: deb.installed_size for deb in debs}
    check_size(sum(size for name, size in stay.items() if name not in removed))
    programs = [path.read_bytes() for path in (*_PROGRAMS, *sorted(apt.FILES.iterdir()))]
    # As the image names it: on a host without a keyring of its own, the archive's is in this build's directory.
    sources = re.sub(r"signed-by=[^\]]+", f"signed-by={wish.base.keyring}", archive.sources)
    key = key_of(str(image.obtained.digest), sources, *words, *(deb.sha256 for deb in debs), *programs)
    return Resolved(archive, debs, removed, sources, key)


def install(guest: Guest, wish: Wish, found: Resolved) -> None:
    """Install the packages, and leave the sources as a bootstrap leaves them; a stage gives them their final form.

    :param guest: mounted, with what :func:`~amphora_mkimage.bases.apt.offer` made shown at its place
    """
    inherited.before_packages(guest)
    apt.install(guest, wish.wanted, found.removed)
    for path in (*guest.glob_expand("/etc/apt/sources.list.d/*"), "/etc/apt/sources.list"):
        guest.rm_f(path)
    guest.write("/etc/apt/sources.list.d/amphora.list", found.sources.encode())


def _removed(here: set[str], unwanted: Sequence[str], kernel: str, kernels: Sequence[str]) -> list[str]:
    """Name the installed packages that go: unwanted ones, and kernels that the wanted one replaces."""
    old = {name for name in here if _KERNEL.fullmatch(name)} - {kernel, *kernels}
    return sorted(here.intersection(unwanted) | old)


def _install_in_namespace(place: Workplace, offered: Path, wish: Wish, found: Resolved) -> None:
    guest = NamespaceGuest(place.tree, place.console)
    try:
        with guest.mounted(), guest.offered(offered, apt.OFFERED):
            install(guest, wish, found)
    finally:
        guest.close()
