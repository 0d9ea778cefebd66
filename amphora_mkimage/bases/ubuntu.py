"""Ubuntu from its archive."""

from __future__ import annotations

from amphora_mkimage.bases.base import Base, Release

#: Whatever the agent: nobody mends what is found in it, but for subscribers.
_ENDED = "Ubuntu mends no security faults in it any more without a subscription"
_ALL = ("{}", "{}-updates", "{}-security")

UBUNTU_MINIMAL = Base(
    name="ubuntu-minimal",
    distribution="ubuntu",
    default_release="noble",
    releases={
        "focal": Release("focal", _ALL, refused=_ENDED, python="3.8"),
        "jammy": Release("jammy", _ALL, python="3.10"),
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
