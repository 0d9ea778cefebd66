"""The tree of a base image as it was published: unpacked once, kept in the cache, looked at before it is used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from amphora_mkimage import unpack
from amphora_mkimage.bases.base import Base
from amphora_mkimage.bases.image import BaseImage, unpacked_key
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.unpack.tar_format import printable
from amphora_mkimage.workplace import Workplace

#: Where os-release(5) is a file; /etc/os-release is a link to it in every base of ours.
OS_RELEASE = "usr/lib/os-release"
#: Bytes of a package database or os-release; a full system's has 5 MB.
_FACT_LIMIT = 64 << 20


def snapshot(place: Workplace, image: BaseImage) -> Path:
    """Give the snapshot of a base image; when it had to be made, the tree is there as well."""

    def make() -> None:
        place.tree.mkdir()
        unpack_file = unpack.squashfs if unpack.kind(image.file) is unpack.Kind.SQUASHFS else unpack.tar
        unpack_file(image.file, place.tree, unpack.Limits(), place.console)

    return _kept(place, image, "unpack the base image", make, place.pack)


def plain_snapshot(place: Workplace, image: BaseImage) -> Path:
    """Give the snapshot as :func:`snapshot` does, without any privilege; when it had to be made, its tar is there."""

    def make() -> None:
        unpack.plain(image.file, place.base_tar, unpack.Limits(), place.console)

    return _kept(place, image, "read the base image", make, place.compress)


def _kept(
    place: Workplace, image: BaseImage, title: str, make: Callable[[], None], keep: Callable[[str], None]
) -> Path:
    """Find a snapshot in the cache, or make it and keep it there."""
    key = unpacked_key(image.obtained)
    kept = place.store.checked_base(key)
    if kept is not None:
        return kept
    with place.console.step(title):
        make()
    with place.console.step("cache the base image"):
        keep(key)
    kept = place.store.checked_base(key)
    if kept is None:
        raise MkimageError(
            "the base image that was just cached cannot be read back", "check the disk of the cache (-c)"
        )
    return kept


def finished(place: Workplace, kept: Path) -> None:
    """Have the tree of a finished base from the cache, in place of any other. The network is gone afterwards."""
    userns.without_network()
    shutil.rmtree(place.tree, ignore_errors=True)
    with place.console.step("unpack the cached base"):
        place.unpack(kept)


def tree(place: Workplace, kept: Path) -> None:
    """Have the tree of a snapshot, unless it is there already."""
    if not place.tree.exists():
        with place.console.step("unpack the cached base image"):
            place.unpack(kept)


def plain(place: Workplace, kept: Path) -> None:
    """Have the tar of a snapshot, unless it is there already."""
    if not place.base_tar.exists():
        with place.console.step("unpack the cached base image"):
            place.decompress(kept)


def check_snapshot(place: Workplace, kept: Path, base: Base, release: str) -> None:
    """Look into a snapshot as :func:`check_identity` does."""
    facts = place.directory / "facts"
    place.extract(kept, (OS_RELEASE,), facts)
    check_identity(inside(facts, OS_RELEASE).read_text(encoding="utf-8"), base, release)


def inside(directory: Path, name: str) -> Path:
    """Give the path of a file that was taken out of an image, which must not be a link to one of the host.

    :raises MkimageError: it is, or it is too large to be what it should be
    """
    path = (directory / name.strip("/")).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise MkimageError(f"/{name.strip('/')} of the base image leads out of it", "use another base image")
    if path.exists() and path.stat().st_size > _FACT_LIMIT:
        raise MkimageError(f"/{name.strip('/')} of the base image is too large", "use another base image")
    return path


def check_identity(os_release: str, base: Base, release: str) -> None:
    """Refuse an image of another system than was asked for: package names, mirrors and kernels would be wrong.

    :param os_release: text of os-release(5)
    :param release: name of the release
    :raises BadValueError: it is another distribution's, or another release
    """
    pairs = (line.partition("=") for line in os_release.splitlines())
    facts = {key: value.strip("\"'") for key, _, value in pairs}
    name = printable(facts.get("PRETTY_NAME") or facts.get("ID") or "a system without a name")
    if facts.get("ID") != base.distribution:
        raise BadValueError(f"-i {base.name}: the base image is {name}", "name its distribution with -i")
    # "10-stream" is version 10, and so is "10.2"; Debian's family goes by its code names.
    version = facts.get("VERSION_ID", "").partition(".")[0] if base.dnf else facts.get("VERSION_CODENAME", "")
    if version != release.partition("-")[0]:
        raise BadValueError(f"-d {release}: the base image is {name}", "name its release with -d")
