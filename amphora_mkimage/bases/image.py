"""The base image of a request: published by its distribution, or the user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from amphora_mkimage.bases import published
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.publication import Location, Publication, SigningKey, redirect
from amphora_mkimage.fetch.signature import fingerprints
from amphora_mkimage.request import Request

if TYPE_CHECKING:
    from amphora_mkimage.fetch.published import Obtained


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
