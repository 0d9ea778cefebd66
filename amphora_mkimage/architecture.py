"""The architectures that images are made for, and how their machines start.

They are called as dpkg calls them; diskimage-create.sh's and uname(1)'s names of the same are in :data:`ALIASES`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Efi:
    """GRUB for UEFI.

    :param suffix: of the loaders' file names (UEFI specification 3.5.1.1: BOOT{machine type}.EFI)
    :param platform: GRUB's name of it
    :param signed: the distribution has a GRUB that is signed for Secure Boot, and a shim that starts it
    """

    suffix: str
    platform: str
    signed: bool = True


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    :param name: dpkg's
    :param machine: uname(2)'s
    :param root_type: type of the root partition (Discoverable Partitions Specification)
    :param console: device of the first serial port
    :param bios: GRUB's platform when it starts under a BIOS
    :param efi: how it starts under UEFI
    :param open_firmware: GRUB's platform when it starts under Open Firmware, from a PReP partition
    """

    name: str
    machine: str
    root_type: str
    console: str
    bios: str = ""
    efi: Efi | None = None
    open_firmware: str = ""


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "amd64",
            "x86_64",
            "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            "ttyS0",
            bios="i386-pc",
            efi=Efi("x64", "x86_64-efi"),
        ),
        Architecture(
            "i386", "i686", "44479540-F297-41B2-9AF7-D131D5F0458A", "ttyS0", bios="i386-pc", efi=Efi("ia32", "i386-efi")
        ),
        Architecture(
            "arm64", "aarch64", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "ttyAMA0", efi=Efi("aa64", "arm64-efi")
        ),
        Architecture(
            "armhf",
            "armv7l",
            "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3",
            "ttyAMA0",
            efi=Efi("arm", "arm-efi", signed=False),
        ),
        Architecture(
            "ppc64el",
            "ppc64le",
            "C31C45E6-3F39-412E-80FB-4809C4980599",
            "hvc0",
            open_firmware="powerpc-ieee1275",
        ),
    )
}
ALIASES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el"}
