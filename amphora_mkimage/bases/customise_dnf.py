"""Make a base of Red Hat's family from a root filesystem, with the image's own dnf.

It is unpacked once and kept in the cache. dnf fetches, with the image's keys, what brings it up to date and makes it an
amphora; the network is gone before anything of that is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from amphora_mkimage.bases import dnf, dnf_repositories, rpm, unpacked
from amphora_mkimage.bases.base import Made, Wish
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.fetch.store import key_of
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.workplace import Workplace

_FIPS = "/etc/dracut.conf.d/40-fips.conf"


def make(place: Workplace, image: BaseImage, wish: Wish, check_size: Callable[[int], None]) -> Made:
    """Make the tree. The network is gone afterwards.

    :param check_size: raises where that many bytes will not fit on the disk
    :raises MkimageError: the image is of another system, or its dnf failed
    """
    console, store = place.console, place.store
    unpacked.tree(place, unpacked.snapshot(place, image))
    guest = NamespaceGuest(place.tree, console)
    try:
        unpacked.check_identity(guest.read_file(f"/{unpacked.OS_RELEASE}").decode(), wish.base, wish.release)
        with guest.mounted():
            with console.step("read the package repositories"):
                dnf.prepare(guest, wish.base.distribution, wish.mirror, os.environ)
                made = _key(image, wish, dnf.metadata(guest))
            kept = store.checked_base(made)
            if kept is None:
                _install(guest, wish, place)
                check_size(sum(package.size for package in rpm.installed(guest)))
    finally:
        guest.close()
    facts: Mapping[str, object] = {"image": image.obtained.facts}
    if kept is not None:
        unpacked.finished(place, kept)
        return Made(made, cached=True, facts=facts)
    with console.step("cache the base"):
        place.pack(made)
    return Made(made, cached=False, facts=facts)


def _key(image: BaseImage, wish: Wish, metadata: str) -> str:
    programs = [Path(module.__file__ or "") for module in (dnf, dnf_repositories, rpm)]
    programs += [Path(__file__), *sorted(path for path in dnf.FILES.iterdir() if path.is_file())]
    words = (*wish.wanted, "-", *wish.unwanted, "fips" if wish.fips else "")
    return key_of(str(image.obtained.digest), metadata, *words, *map(Path.read_bytes, programs))


def _install(guest: NamespaceGuest, wish: Wish, place: Workplace) -> None:
    with place.console.step("download packages"):
        dnf.fetch(guest, wish.wanted, wish.unwanted)
    # All that came from outside is here and verified: no package's script ever gets the network.
    userns.without_network()
    if wish.fips:
        guest.mkdir_p(_FIPS.rpartition("/")[0])
        guest.write(_FIPS, (dnf.FILES / "dracut-fips.conf").read_bytes())
    with place.console.step("install packages"):
        dnf.install(guest, wish.wanted, wish.unwanted)
        dnf.finish(guest)
