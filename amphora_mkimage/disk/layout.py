"""The partition table: one image that starts under every firmware that its architecture has.

GPT with a BIOS boot partition (GRUB manual, "BIOS installation") where there are BIOSes, an EFI system partition (UEFI
specification 13.3) where there is UEFI, a PReP boot partition where there is Open Firmware, and the root last, so that
cloud-init's growpart can give it the rest of a larger disk.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.console import Console
from amphora_mkimage.disk.tools import tool

GIB = 1 << 30
MIB = 1 << 20
_SECTOR = 512
#: GRUB's core image needs less than 1 MiB; a FAT16 ESP holds shim, GRUB and room for their successors; SLOF loads a
#: PReP partition whole.
_BIOS_MIB, _ESP_MIB, _PREP_MIB = 1, 64, 8
#: Types of partitions.
_BIOS = "21686148-6449-6E6F-744E-656564454649"
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_PREP = "9E1A2D38-C612-4316-AA26-8B49521E5A8B"


@dataclass(frozen=True)
class Extent:
    """Where a partition lies on the disk, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The partitions of a disk; None for those that its architecture does not have."""

    esp: Extent | None
    root: Extent
    prep: Extent | None = None


def root_capacity(size_gib: int) -> int:
    """Give the bytes that the root partition of a disk will have, nearly (the table itself takes some sectors)."""
    return size_gib * GIB - (_BIOS_MIB + _ESP_MIB + 2) * MIB


def partition(disk: Path, size_gib: int, arch: str, console: Console) -> Layout:
    """Make a sparse disk of exactly the given size and write its partition table.

    :param arch: dpkg's name of the architecture
    """
    with disk.open("wb") as file:
        file.truncate(size_gib * GIB)
    architecture = ARCHITECTURES[arch]
    table = ["label: gpt", f"label-id: {uuid.uuid4()}"]
    if architecture.bios:
        table.append(f"size={_BIOS_MIB}MiB, type={_BIOS}, name=bios")
    if architecture.efi:
        table.append(f"size={_ESP_MIB}MiB, type={_ESP}, name=esp")
    if architecture.open_firmware:
        table.append(f"size={_PREP_MIB}MiB, type={_PREP}, name=prep")
    table.append(f"type={architecture.root_type}, uuid={uuid.uuid4()}, name=root")
    tool(["sfdisk", "--quiet", disk], console, "cannot partition the disk", stdin="\n".join(table) + "\n")
    listing = json.loads(tool(["sfdisk", "--json", disk], console, "cannot read the partition table back"))
    places = {
        entry["name"]: Extent(entry["start"] * _SECTOR, entry["size"] * _SECTOR)
        for entry in listing["partitiontable"]["partitions"]
    }
    return Layout(places.get("esp"), places["root"], places.get("prep"))
