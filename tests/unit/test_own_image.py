"""A failure inside of the user's own image says what of that image it is about."""

from __future__ import annotations

import pytest
from make_request import make

from amphora_mkimage import own_image
from amphora_mkimage.errors import BadValueError, MkimageError

APT = "in the image: apt-get: chroot exited with status 100"
MKINITRAMFS = "in the image: /run/amphora-script: chroot exited with status 1"


@pytest.mark.parametrize(
    ("what", "tail", "remedy"),
    [
        (APT, ["E: Syntax error /etc/apt/apt.conf.d/01mine:3: Extra junk"], "has /etc/apt/apt.conf.d/01mine:"),
        (APT, ["dpkg: error processing package mine (--configure):", " exited with 1"], "has the package mine,"),
        (MKINITRAMFS, ["/etc/initramfs-tools/hooks/x: 3: y: not found", "E: 1"], "has /etc/initramfs-tools/hooks/x:"),
        (APT, ["E: Sub-process /usr/bin/dpkg returned an error code (1)"], "has settings that make this fail"),
        ("in the image: write: /etc/hosts: Is a directory", [], "has /etc/hosts:"),
    ],
)  # fmt: skip
def test_the_file_is_named(what: str, tail: list[str], remedy: str) -> None:
    error = own_image.explain(MkimageError(what, tail=tail), make(DIB_LOCAL_IMAGE=__file__))
    assert error.remedy.startswith(f"your image (DIB_LOCAL_IMAGE) {remedy}")
    assert (error.what, error.tail) == (what, tuple(tail))


def test_what_is_not_the_images_is_left_as_it_is() -> None:
    own, published = make(DIB_LOCAL_IMAGE=__file__), make()
    for error, request in (
        (MkimageError(APT), published),
        (MkimageError("cannot fetch x"), own),
        (BadValueError("in the image: write: No space left on device", "choose a larger size"), own),
    ):
        assert own_image.explain(error, request) is error
