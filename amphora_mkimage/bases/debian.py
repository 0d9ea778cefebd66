"""Debian from its archive."""

from __future__ import annotations

from dataclasses import replace

from amphora_mkimage.bases.base import Base, Release

_PYTHON_TOO_OLD = "its Python is older than 3.11, which the amphora agent needs"
_ALL = ("{}", "{}-updates", "{}-security")

DEBIAN_MINIMAL = Base(
    name="debian-minimal",
    distribution="debian",
    default_release="trixie",
    releases={
        "buster": Release("buster", _ALL, refused=_PYTHON_TOO_OLD),
        "bullseye": Release("bullseye", _ALL, refused=_PYTHON_TOO_OLD),
        "bookworm": Release("bookworm", _ALL),
        "trixie": Release("trixie", _ALL),
        "forky": Release("forky", _ALL),
    },
    components=("main",),
    keyring="/usr/share/keyrings/debian-archive-keyring.gpg",
    keyring_package="debian-archive-keyring",
    # The cloud kernel leaves out drivers for hardware that no virtual machine has: a third of the size, a faster boot.
    kernels={"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-cloud-arm64"},
    # The package of Debian's own cloud images: BIOS modules and the signed EFI loaders beside each other.
    bootloader={"amd64": ("grub-cloud-amd64",)},
)

#: From the image that is published for clouds.
DEBIAN = replace(DEBIAN_MINIMAL, name="debian", published=True)
