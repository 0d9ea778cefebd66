"""The base image of a request: published by its distribution, or the user's own."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from amphora_mkimage import unpack
from amphora_mkimage.bases import published
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.publication import Location, Publication, SigningKey, redirect
from amphora_mkimage.fetch.signature import fingerprints
from amphora_mkimage.fetch.store import Store, key_of
from amphora_mkimage.request import Request

if TYPE_CHECKING:
    from amphora_mkimage.fetch.published import Obtained


@dataclass(frozen=True)
class BaseImage:
    """A base image that can be unpacked.

    :param obtained: the file as it is published
    :param file: tar or squashfs: that file, or what was read out of a disk; gone when the snapshot is there already
    """

    obtained: Obtained
    file: Path


@contextlib.contextmanager
def prepared(request: Request, store: Store, console: Console, scratch: Path) -> Iterator[BaseImage]:
    """Have the base image ready for unpacking.

    A disk image is read here, outside of the build's namespace: the appliance of libguestfs needs files of this host
    that its owner sees as another's in there.

    :param scratch: directory for libguestfs' temporary files
    :raises MkimageError: it cannot be fetched, or is not what it should be
    """
    with console.step("fetch the base image"):
        obtained = obtain(request, console)
    kind = unpack.kind(obtained.path)
    if kind in (unpack.Kind.TAR, unpack.Kind.SQUASHFS) or store.checked_base(unpacked_key(obtained)):
        yield BaseImage(obtained, obtained.path)
        return
    # What a kill leaves of it is swept like any other file of the cache that was not finished.
    store.prepare()
    file = store.bases / f".partial-{uuid.uuid4().hex}"
    try:
        unpack.disk(obtained.path, kind, file, unpack.Limits(), console, scratch=scratch)
        yield BaseImage(obtained, file)
    finally:
        file.unlink(missing_ok=True)


def unpacked_key(obtained: Obtained) -> str:
    """Give the cache key of the tree as it was published."""
    return key_of("unpacked", str(obtained.digest))


def obtain(request: Request, console: Console) -> Obtained:
    """Fetch the base image, or find it in the cache, verified.

    :raises MkimageError: it cannot be fetched, or is not what it should be
    """
    # Not before: it needs requests, without which everything else works.
    from amphora_mkimage.fetch.published import obtain as obtain_published  # noqa: PLC0415
    from amphora_mkimage.fetch.published import obtain_own  # noqa: PLC0415

    images = Images(request.cache_dir, console.warn)
    images.prepare()
    if request.local_image:
        return obtain_own(request.local_image, images, console, insecure=request.insecure)
    return obtain_published(publication(request, console), images, console, insecure=request.insecure)


def publication(request: Request, console: Console) -> Publication:
    """Describe what is published for a request, where the user wants it to be fetched."""
    found = _where(request)
    if request.image_keyring is not None:
        material = [request.image_keyring.read_bytes()]
        key = SigningKey(
            fingerprints=tuple(fingerprints(material, console)),
            published_at="the user's own keyring",
            keyrings=(str(request.image_keyring),),
        )
        found = replace(found, key=key)
    return found


def describe(request: Request) -> str:
    """Say where the base image comes from, without credentials."""
    if request.local_image:
        return Location.parse(request.local_image.partition("#")[0]).shown
    found = _where(request)
    return f"{found.directory.shown}, file {found.image.replace(chr(92), '')}"


def _where(request: Request) -> Publication:
    found = published.find(request.base.distribution, request.release, request.arch)
    return redirect(found, request.image_mirror) if request.image_mirror else found
