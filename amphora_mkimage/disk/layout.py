"""The partition table: one image that starts under BIOS and under UEFI.

GPT with a BIOS boot partition (GRUB manual, "BIOS installation"), an EFI system partition (UEFI specification 13.3)
and the root last, so that cloud-init's growpart can give it the rest of a larger disk.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.disk.tools import tool

GIB = 1 << 30
MIB = 1 << 20
_SECTOR = 512
#: GRUB's core image needs less than 1 MiB; a FAT16 ESP holds shim, GRUB and room for their successors.
_BIOS_MIB, _ESP_MIB = 1, 64
_TABLE = """\
label: gpt
label-id: {disk}
size={bios}MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
size={esp}MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
type={root_type}, uuid={root}, name=root
"""
#: Root partition types of the Discoverable Partitions Specification, by architecture.
_ROOT_TYPES = {
    "amd64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "arm64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}


@dataclass(frozen=True)
class Extent:
    """Where a partition lies on the disk, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The partitions of a disk."""

    esp: Extent
    root: Extent


def root_capacity(size_gib: int) -> int:
    """Give the bytes that the root partition of a disk will have, nearly (the table itself takes some sectors)."""
    return size_gib * GIB - (_BIOS_MIB + _ESP_MIB + 2) * MIB


def partition(disk: Path, size_gib: int, arch: str, console: Console) -> Layout:
    """Make a sparse disk of exactly the given size and write its partition table."""
    with disk.open("wb") as file:
        file.truncate(size_gib * GIB)
    table = _TABLE.format(
        disk=uuid.uuid4(), root=uuid.uuid4(), bios=_BIOS_MIB, esp=_ESP_MIB, root_type=_ROOT_TYPES[arch]
    )
    tool(["sfdisk", "--quiet", disk], console, "cannot partition the disk", stdin=table)
    listing = json.loads(tool(["sfdisk", "--json", disk], console, "cannot read the partition table back"))
    _, esp, root = (
        Extent(entry["start"] * _SECTOR, entry["size"] * _SECTOR) for entry in listing["partitiontable"]["partitions"]
    )
    return Layout(esp, root)
