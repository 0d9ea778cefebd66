"""Debian from its archive."""

from __future__ import annotations

from amphora_mkimage.bases.base import Base, Release

#: Whatever the agent: nobody mends what is found in it.
_ENDED = "Debian mends no security faults in it any more"
#: Debian 13's release notes, "Reduced support for i386".
_NO_KERNEL = "its i386 has neither kernel nor boot loader any more; Debian 12 is the last that starts on such machines"
#: The agent runs /sbin/dhclient on ports without fixed addresses, and so does ifupdown on the management card.
_NO_DHCLIENT = (
    "it has no isc-dhcp-client any more, which the amphora agent calls; dhcpcd in its place rewrites resolv.conf "
    "and takes IPv6 addresses that Neutron does not expect"
)
_ALL = ("{}", "{}-updates", "{}-security")

DEBIAN_MINIMAL = Base(
    name="debian-minimal",
    distribution="debian",
    default_release="trixie",
    releases={
        "buster": Release("buster", _ALL, refused=_ENDED, python="3.7"),
        "bullseye": Release("bullseye", _ALL, refused=_ENDED, python="3.9"),
        "bookworm": Release("bookworm", _ALL, python="3.11"),
        "trixie": Release("trixie", _ALL, lacks={"i386": _NO_KERNEL}, python="3.13"),
        "forky": Release("forky", _ALL, refused=_NO_DHCLIENT),
    },
    components=("main",),
    keyring="/usr/share/keyrings/debian-archive-keyring.gpg",
    keyring_package="debian-archive-keyring",
    # The cloud kernel leaves out drivers for hardware that no virtual machine has: a third of the size, a faster boot.
    kernels={
        "amd64": "linux-image-cloud-amd64",
        "i386": "linux-image-686-pae",
        "arm64": "linux-image-cloud-arm64",
        # Every processor that virtualises has LPAE, and qemu's "virt" machine puts its PCI bus above 4 GiB.
        "armhf": "linux-image-armmp-lpae",
        "ppc64el": "linux-image-powerpc64le",
    },
    bootloader={
        # The package of Debian's own cloud images: BIOS modules and the signed EFI loaders beside each other.
        "amd64": ("grub-cloud-amd64",),
        # The others have none (arm64 only since Debian 13); these are what grub-cloud-* depends on.
        "i386": ("grub2-common", "grub-pc-bin", "grub-efi-ia32-signed", "shim-signed"),
        "arm64": ("grub2-common", "grub-efi-arm64-bin", "grub-efi-arm64-signed", "shim-signed"),
        "armhf": ("grub2-common", "grub-efi-arm-bin"),
        "ppc64el": ("grub2-common", "grub-ieee1275-bin"),
    },
)
