"""GPT and MBR, read from the disk's own sectors.

Asked through libguestfs, each fact is a run of parted or sgdisk inside an emulated appliance: five seconds in all, and
without what the checks want to know (boot code, checksums, the backup table).

GPT: UEFI specification 5.3. GRUB's boot sector: grub-core/boot/i386/pc/boot.S and include/grub/i386/pc/boot.h.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

SECTOR = 512
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
PREP = "9e1a2d38-c612-4316-aa26-8b49521e5a8b"
_GPT_TABLE_LIMIT = 1 << 20
_LOGICAL_LIMIT = 64

Read = Callable[[int, int], bytes]  #: offset and size in bytes; gives less at the end of the disk


@dataclass(frozen=True)
class Partition:
    """A partition.

    :param number: as in /dev/sda<number>
    :param start: first byte
    :param size: in bytes
    :param type: GUID in lower case, or the MBR type as "0x83"
    """

    number: int
    start: int
    size: int
    type: str
    guid: str = ""
    active: bool = False


@dataclass(frozen=True)
class PartitionTable:
    """What the first sectors say.

    :param kind: "gpt", "mbr" or "" (none)
    :param problems: what is wrong with the table, one line each
    :param boot_code: the MBR's first 440 bytes
    """

    kind: str
    partitions: tuple[Partition, ...] = ()
    problems: tuple[str, ...] = ()
    boot_code: bytes = field(default=b"", repr=False)

    def of_type(self, *types: str) -> Partition | None:
        """Give the first partition of one of these types."""
        return next((p for p in self.partitions if p.type in types), None)

    @property
    def esp(self) -> Partition | None:
        """The EFI system partition."""
        return self.of_type(ESP, "0xef")


def parse(read: Read, disk_size: int) -> PartitionTable:
    """Read the partition table of a disk.

    :param disk_size: in bytes
    """
    mbr = read(0, SECTOR)
    if len(mbr) < SECTOR or mbr[510:] != b"\x55\xaa":
        return PartitionTable("")
    primary = _mbr_entries(mbr)
    if any(kind == 0xEE for kind, *_ in primary):
        partitions, problems = _gpt(read, disk_size)
        kind = "gpt"
    elif not _plausible(mbr, primary):
        return PartitionTable("")  # the boot sector of a filesystem, not a table
    else:
        partitions, problems = _mbr(read, primary)
        kind = "mbr"
    problems += _misplaced(partitions, disk_size)
    return PartitionTable(kind, tuple(partitions), tuple(problems), mbr[:440])


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int, bool]]:
    """Give (type, first sector, sectors, active) of the four entries."""
    entries = []
    for offset in range(446, 510, 16):
        status, kind, start, count = struct.unpack_from("<B3xB3xII", sector, offset)
        entries.append((kind, start, count, status == 0x80))
    return entries


def _plausible(mbr: bytes, entries: list[tuple[int, int, int, bool]]) -> bool:
    statuses = {mbr[offset] for offset in range(446, 510, 16)}
    return statuses <= {0, 0x80} and any(kind and count for kind, _, count, _ in entries)


def _mbr(read: Read, primary: list[tuple[int, int, int, bool]]) -> tuple[list[Partition], list[str]]:
    partitions, problems = [], []
    for number, (kind, start, count, active) in enumerate(primary, 1):
        if not kind or not count:
            continue
        partitions.append(Partition(number, start * SECTOR, count * SECTOR, f"{kind:#04x}", active=active))
        if kind in (0x05, 0x0F, 0x85):
            logical = _logical(read, start)
            if logical is None:
                problems.append("the chain of logical partitions is broken")
            partitions += logical or []
    return partitions, problems


def _logical(read: Read, extended: int) -> list[Partition] | None:
    """Follow the chain inside an extended partition; None when it is broken or a loop."""
    partitions: list[Partition] = []
    current = extended
    for number in range(5, 5 + _LOGICAL_LIMIT):
        sector = read(current * SECTOR, SECTOR)
        if len(sector) < SECTOR or sector[510:] != b"\x55\xaa":
            return None
        (kind, start, count, active), (_, step, more, _), *_ = _mbr_entries(sector)
        if kind and count:
            place = (current + start) * SECTOR
            partitions.append(Partition(number, place, count * SECTOR, f"{kind:#04x}", active=active))
        if not more:
            return partitions
        current = extended + step
    return None


def _gpt(read: Read, disk_size: int) -> tuple[list[Partition], list[str]]:
    partitions, problem, alternate = _gpt_half(read, 1)
    last = disk_size // SECTOR - 1
    if problem:
        partitions, second, _ = _gpt_half(read, last)
        return partitions, [f"its GPT {problem}" + (f", and its backup {second}" if second else "")]
    if alternate != last:
        return partitions, ["the backup GPT is not at the end of the disk: it was cut off or resized"]
    _, problem, _ = _gpt_half(read, last)
    return partitions, [f"the backup GPT {problem}"] if problem else []


def _gpt_half(read: Read, sector: int) -> tuple[list[Partition], str, int]:
    """Read a header and its entries: (partitions, problem, sector of the other header)."""
    header = read(sector * SECTOR, SECTOR)
    if len(header) < 92 or header[:8] != b"EFI PART":
        return [], "is missing", 0
    size, checksum = struct.unpack_from("<II", header, 12)
    alternate, table = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<Q", header, 72)[0]
    count, entry_size, entries_checksum = struct.unpack_from("<III", header, 80)
    if not 92 <= size <= SECTOR or zlib.crc32(header[:16] + bytes(4) + header[20:size]) != checksum:
        return [], "has a wrong checksum", 0
    if entry_size < 128 or count * entry_size > _GPT_TABLE_LIMIT:
        return [], "has an impossible size", 0
    entries = read(table * SECTOR, count * entry_size)
    if len(entries) < count * entry_size or zlib.crc32(entries) != entries_checksum:
        return [], "has entries with a wrong checksum", 0
    partitions = []
    for number in range(1, count + 1):
        raw = entries[(number - 1) * entry_size :][:128]
        first, final = struct.unpack_from("<QQ", raw, 32)
        if raw[:16] != bytes(16):
            place = first * SECTOR, (final - first + 1) * SECTOR
            partitions.append(Partition(number, *place, _guid(raw[:16]), _guid(raw[16:32])))
    return partitions, "", alternate


def _guid(raw: bytes) -> str:
    first, second, third = struct.unpack_from("<IHH", raw)
    return f"{first:08x}-{second:04x}-{third:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def _misplaced(partitions: list[Partition], disk_size: int) -> list[str]:
    """Name partitions that lie outside the disk or over each other."""
    problems = []
    extended = ("0x05", "0x0f", "0x85")
    real = sorted((p for p in partitions if p.type not in extended), key=lambda p: p.start)
    for partition in real:
        if partition.size <= 0 or partition.start + partition.size > disk_size:
            problems.append(f"partition {partition.number} reaches beyond the end of the disk")
    for one, other in itertools.pairwise(real):
        if one.start + one.size > other.start:
            problems.append(f"partitions {one.number} and {other.number} overlap")
    return problems


# --- GRUB on BIOS --------------------------------------------------------------------------------------------------


def grub_core_problem(table: PartitionTable, read: Read) -> str:
    """Tell what is wrong between GRUB's boot sector and its core image, or ""."""
    sector = struct.unpack_from("<Q", table.boot_code, 0x5C)[0]  # GRUB_BOOT_MACHINE_KERNEL_SECTOR
    first = read(sector * SECTOR, SECTOR)
    if len(first) < SECTOR or not any(first):
        return f"GRUB's boot sector names sector {sector} for the rest of GRUB, where nothing is"
    # diskboot.S ends with a list of extents that grows downwards: the first one is last in the sector.
    start, count, _segment = struct.unpack_from("<QHH", first, SECTOR - 12)
    if start != sector + 1 or not count or not any(read(start * SECTOR, SECTOR)):
        return f"what GRUB's boot sector names at sector {sector} is not GRUB's core image"
    return _misplaced_core(table, sector * SECTOR, (start + count) * SECTOR)


def _misplaced_core(table: PartitionTable, start: int, end: int) -> str:
    if table.kind == "gpt":
        home = table.of_type(BIOS_BOOT)
        if home is None:
            return "there is no BIOS boot partition for GRUB's core image"
        inside = home.start <= start < end <= home.start + home.size
        return "" if inside else "GRUB's core image does not lie inside the BIOS boot partition"
    if table.partitions and end > min(partition.start for partition in table.partitions):
        return "GRUB's core image reaches into the first partition"
    return ""
