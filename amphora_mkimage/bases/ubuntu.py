"""Ubuntu from its archive."""

from __future__ import annotations

from amphora_mkimage.bases.base import Base, Release

_PYTHON_TOO_OLD = "its Python is older than 3.11, which the amphora agent needs"
_ALL = ("{}", "{}-updates", "{}-security")

UBUNTU_MINIMAL = Base(
    name="ubuntu-minimal",
    distribution="ubuntu",
    default_release="noble",
    releases={
        "focal": Release("focal", _ALL, refused=_PYTHON_TOO_OLD),
        "jammy": Release("jammy", _ALL, refused=_PYTHON_TOO_OLD),
        "noble": Release("noble", _ALL, python="3.12"),
        "resolute": Release("resolute", _ALL, python="3.14"),
    },
    # haproxy and keepalived are in main, ipvsadm is in universe.
    components=("main", "universe"),
    keyring="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    keyring_package="ubuntu-keyring (Debian 12 does not have it)",
    kernels={
        "amd64": "linux-image-virtual",
        "arm64": "linux-image-virtual",
        "armhf": "linux-image-generic",
        "ppc64el": "linux-image-virtual",
    },
    # Ubuntu has no grub-cloud; grub-pc and grub-efi conflict, their -bin packages do not.
    bootloader={
        "amd64": ("grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"),
        "arm64": ("grub2-common", "grub-efi-arm64-bin", "grub-efi-arm64-signed", "shim-signed"),
        "armhf": ("grub2-common", "grub-efi-arm-bin"),
        "ppc64el": ("grub2-common", "grub-ieee1275-bin"),
    },
    ports=frozenset(("arm64", "armhf", "ppc64el")),
)
