"""Make a base from a root filesystem that the distribution publishes, or from one of the user's own.

It is unpacked once and kept in the cache; then brought up to date, and given the packages of an amphora, by its own apt
from packages that are already here and verified.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from amphora_mkimage.bases import apt, dpkg, unpacked
from amphora_mkimage.bases.archive import Archive, fetching
from amphora_mkimage.bases.base import Base, Made
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import key_of
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.workplace import Workplace

_KERNEL = re.compile(r"linux-image-(unsigned-)?[0-9]\S*")
_KEYRINGS = "usr/share/keyrings"
#: Opens the archive against a status file, with a keyring when the host has none.
OpenArchive = Callable[[Path, Path], Archive]


def make(
    place: Workplace,
    image: BaseImage,
    open_archive: OpenArchive,
    *,
    base: Base,
    release: str,
    wanted: Sequence[str],
    unwanted: Sequence[str],
    kernel: str,
    check_size: Callable[[int], None],
) -> Made:
    """Make the tree. The network is gone afterwards.

    :param base: its keyring is below /usr/share/keyrings in the image
    :param release: name of the release
    :param wanted: names of all wanted packages, among them the kernel
    :param unwanted: names of packages that go where they are there
    :param kernel: name of the kernel package
    :param check_size: raises where that many bytes will not fit on the disk
    :raises MkimageError: the image is of another system, or a package cannot be had or installed
    """
    console, store = place.console, place.store
    snapshot = unpacked.snapshot(place, image)
    facts = place.directory / "facts"
    place.extract(snapshot, (dpkg.STATUS, unpacked.OS_RELEASE, _KEYRINGS), facts)
    unpacked.check_identity(_inside(facts, unpacked.OS_RELEASE).read_text(encoding="utf-8"), base, release)
    here = dpkg.installed(_inside(facts, dpkg.STATUS))
    with console.step("read the package archive"):
        archive = open_archive(facts / dpkg.STATUS, _inside(facts, base.keyring))
        archive.update()
        removed = _removed({package.name for package in here}, unwanted, kernel, archive.dependencies(kernel))
        words = [*wanted, *(f"{name}-" for name in removed)]
        debs = archive.resolve(words, command="dist-upgrade")
    stay = {package.name: package.size for package in here} | {deb.name: deb.installed_size for deb in debs}
    check_size(sum(size for name, size in stay.items() if name not in removed))
    programs = [path.read_bytes() for path in (Path(__file__), Path(apt.__file__), *sorted(apt.FILES.iterdir()))]
    # As the image names it: on a host without a keyring of its own, the archive's is in this build's directory.
    sources = re.sub(r"signed-by=[^\]]+", f"signed-by={base.keyring}", archive.sources)
    made = key_of(str(image.obtained.digest), sources, *words, *(deb.sha256 for deb in debs), *programs)
    facts_of_image = {"image": image.obtained.facts}
    kept = store.checked_base(made)
    if kept is not None:
        userns.without_network()
        shutil.rmtree(place.tree, ignore_errors=True)
        with console.step("unpack the cached base"):
            place.unpack(kept)
        return Made(made, cached=True, facts=facts_of_image)
    with fetching(archive, debs, store, console):
        # All that came from outside is here and verified: nothing that runs in the image ever gets the network.
        userns.without_network()
        unpacked.tree(place, snapshot)
        offered = place.directory / "offered"
        apt.offer(archive, debs, offered, console)
        with console.step("install packages"):
            _install(place, offered, sources, wanted, removed)
    shutil.rmtree(offered)
    shutil.rmtree(archive.directory)
    with console.step("cache the base"):
        place.pack(made)
    return Made(made, cached=False, facts=facts_of_image)


def _inside(directory: Path, name: str) -> Path:
    """Give the path of a file from the image, which must not be a link to one of the host."""
    path = (directory / name.strip("/")).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise MkimageError(f"/{name.strip('/')} of the base image leads out of it", "use another base image")
    return path


def _removed(here: set[str], unwanted: Sequence[str], kernel: str, kernels: Sequence[str]) -> list[str]:
    """Name the installed packages that go: unwanted ones, and kernels that the wanted one replaces."""
    old = {name for name in here if _KERNEL.fullmatch(name)} - {kernel, *kernels}
    return sorted(here.intersection(unwanted) | old)


def _install(place: Workplace, offered: Path, sources: str, wanted: Sequence[str], removed: Sequence[str]) -> None:
    guest = NamespaceGuest(place.tree, place.console)
    try:
        with guest.mounted(), guest.offered(offered, apt.OFFERED):
            apt.install(guest, wanted, removed)
        # As a bootstrap leaves them; a stage gives them their final form.
        for path in (*guest.glob_expand("/etc/apt/sources.list.d/*"), "/etc/apt/sources.list"):
            guest.rm_f(path)
        guest.write("/etc/apt/sources.list.d/amphora.list", sources.encode())
    finally:
        guest.close()
