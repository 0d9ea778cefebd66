"""Make a base of Red Hat's family from a root filesystem, with the image's own dnf.

It is unpacked once and kept in the cache. dnf fetches, with the image's keys, what brings it up to date and makes it an
amphora; the network is gone before anything of that is installed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.bases import dnf, dnf_downloads, dnf_repositories, rpm, unpacked
from amphora_mkimage.bases.base import Made, Wish
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store, key_of
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.stages import inherited
from amphora_mkimage.workplace import Workplace

_FIPS = "/etc/dracut.conf.d/40-fips.conf"


@dataclass(frozen=True)
class Network:
    """How a guest has a network while dnf reads and fetches.

    :param names: lets the guest look up names, for the time of a block
    :param address: gives URLs of this host as the guest has to write them
    :param cut: takes the network away for good
    """

    names: Callable[[], AbstractContextManager[None]]
    address: Callable[[str], str]
    cut: Callable[[], None]


def make(place: Workplace, image: BaseImage, wish: Wish, check_size: Callable[[int], None]) -> Made:
    """Make the tree. The network is gone afterwards.

    :param check_size: raises where that many bytes will not fit on the disk
    :raises MkimageError: the image is of another system, or its dnf failed
    """
    console, store = place.console, place.store
    unpacked.tree(place, unpacked.snapshot(place, image))
    guest = NamespaceGuest(place.tree, console)
    network = Network(lambda: _names_of_host(guest), str, userns.without_network)
    try:
        unpacked.check_identity(guest.read_file(f"/{unpacked.OS_RELEASE}").decode(), wish.base, wish.release)
        with guest.mounted():
            inherited.before_packages(guest)
            made = resolve(guest, image, wish, network, console)
            kept = store.checked_base(made)
            if kept is None:
                install(guest, wish, network, store, console)
                finish(guest, check_size)
    finally:
        guest.close()
    facts: Mapping[str, object] = {"image": image.obtained.facts}
    if kept is not None:
        unpacked.finished(place, kept)
        return Made(made, cached=True, facts=facts)
    with console.step("cache the base"):
        place.pack(made)
    return Made(made, cached=False, facts=facts)


def resolve(guest: Guest, image: BaseImage, wish: Wish, network: Network, console: Console) -> str:
    """Read the repositories; the key of the finished base in the cache.

    :param guest: mounted
    :raises MkimageError: one cannot be read
    """
    with console.step("read the package repositories"), network.names():
        dnf.prepare(guest, wish.base.distribution, wish.mirror, os.environ, network.address)
        metadata = dnf.metadata(guest)
    programs = [Path(module.__file__ or "") for module in (dnf, dnf_repositories, rpm)]
    programs += [
        Path(__file__),
        Path(inherited.__file__),
        inherited.TABLE,
        *sorted(path for path in dnf.FILES.iterdir() if path.is_file()),
    ]
    words = (*wish.wanted, "-", *wish.unwanted, "fips" if wish.fips else "")
    return key_of(str(image.obtained.digest), metadata, *words, *map(Path.read_bytes, programs))


def install(guest: Guest, wish: Wish, network: Network, store: Store, console: Console) -> None:
    """Fetch the packages that the cache lacks, cut the network and install all of them.

    :param guest: mounted, after :func:`resolve`
    :raises MkimageError: a package cannot be had, is not signed, or its script failed
    """
    with console.step("take packages from the cache"):
        dnf_downloads.restore(guest, store, wish)
    with console.step("download packages"), network.names():
        dnf.fetch(guest, wish.wanted, wish.unwanted)
    # All that came from outside is here and verified: no package's script ever gets the network.
    network.cut()
    if wish.fips:
        guest.mkdir_p(_FIPS.rpartition("/")[0])
        guest.write(_FIPS, (dnf.FILES / "dracut-fips.conf").read_bytes())
    with console.step("install packages"):
        dnf.install(guest, wish.wanted, wish.unwanted)
    with console.step("cache the packages"):
        dnf_downloads.keep(guest, store, wish)


def finish(guest: Guest, check_size: Callable[[int], None]) -> None:
    """Remove what only :func:`install` needed, and see that what is left fits.

    :param guest: mounted; with nothing mounted where dnf worked
    :param check_size: raises where that many bytes will not fit on the disk
    """
    dnf.finish(guest)
    check_size(sum(package.size for package in rpm.installed(guest)))


@contextlib.contextmanager
def _names_of_host(guest: Guest) -> Iterator[None]:
    """Let a guest that shares the host's network look up names as the host does, for the time of the block."""
    file, kept = "/etc/resolv.conf", "/etc/resolv.conf.amphora"
    there = guest.is_file(file) or guest.is_symlink(file)
    if there:
        guest.mv(file, kept)
    try:
        with contextlib.suppress(FileNotFoundError):
            guest.write(file, Path(file).read_bytes())
        yield
    finally:
        guest.rm_f(file)
        if there:
            guest.mv(kept, file)
