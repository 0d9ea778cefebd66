"""The base image of a request: published by its distribution, or the user's own."""

from __future__ import annotations

from dataclasses import replace

from amphora_mkimage.bases import published
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.publication import Publication, SigningKey, redirect
from amphora_mkimage.fetch.published import Obtained, obtain_own
from amphora_mkimage.fetch.published import obtain as obtain_published
from amphora_mkimage.fetch.signature import fingerprints
from amphora_mkimage.request import Request


def obtain(request: Request, console: Console) -> Obtained:
    """Fetch the base image, or find it in the cache, verified.

    :raises MkimageError: it cannot be fetched, or is not what it should be
    """
    images = Images(request.cache_dir, console.warn)
    images.prepare()
    if request.local_image:
        return obtain_own(request.local_image, images, console, insecure=request.insecure)
    return obtain_published(publication(request, console), images, console, insecure=request.insecure)


def publication(request: Request, console: Console) -> Publication:
    """Describe what is published for a request, where the user wants it to be fetched."""
    found = published.find(request.base.distribution, request.release, request.arch)
    if request.image_mirror:
        found = redirect(found, request.image_mirror)
    if request.image_keyring is not None:
        material = [request.image_keyring.read_bytes()]
        key = SigningKey(
            fingerprints=tuple(fingerprints(material, console)),
            published_at="the user's own keyring",
            keyrings=(str(request.image_keyring),),
        )
        found = replace(found, key=key)
    return found
