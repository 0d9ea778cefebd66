"""What a file is, by its own bytes: its name comes from a URL or a user and proves nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from amphora_mkimage.errors import BadValueError
from amphora_mkimage.unpack.tar_format import is_header

#: Enough for the last magic number: btrfs' superblock starts at 64 KiB.
_HEAD = 68 << 10

#: Compression that a tar may have: the first bytes, and the program that undoes it on a pipe. None of them looks at a
#: file name. xz and zstd limit what memory a header may ask for; zstd does so by itself (128 MiB).
DECOMPRESSORS = {
    b"\x1f\x8b": ("gzip", "--decompress", "--stdout"),
    b"\xfd7zXZ\0": ("xz", "--decompress", "--stdout", "--threads=0", "--memlimit-decompress=1GiB"),
    b"\x28\xb5\x2f\xfd": ("zstd", "--decompress", "--stdout", "--quiet"),
    b"BZh": ("bzip2", "--decompress", "--stdout"),
}

#: Signatures of whole disks and of bare filesystems: offset and bytes.
_DISKS = (
    (510, b"\x55\xaa"),  # MBR, also the protective one of GPT; FAT
    (512, b"EFI PART"),  # GPT
    (4096, b"EFI PART"),  # GPT on a disk with sectors of 4096 bytes
    (1080, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),  # btrfs
    (512, b"LABELONE"),  # LVM physical volume
)

_OTHERS = {
    b"KDMV": "a VMDK",
    b"# Disk DescriptorFile": "a VMDK",
    b"<<< ": "a VDI",
    b"vhdxfile": "a VHDX",
    b"conectix": "a VHD",
}


class Kind(StrEnum):
    """What can be unpacked."""

    TAR = "tar"  #: plain, or compressed with gzip, xz, zstd or bzip2
    SQUASHFS = "squashfs"
    QCOW2 = "qcow2"
    RAW = "raw"  #: a raw disk, partitioned or not


def kind(path: Path) -> Kind:
    """Tell what a file is.

    :raises BadValueError: it cannot be read, or is nothing that can be unpacked
    """
    try:
        if not path.is_file():
            raise BadValueError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise BadValueError(f"cannot read {path}: {error.strerror}") from error
    if head.startswith(tuple(DECOMPRESSORS)) or is_header(head[:512]):
        return Kind.TAR
    if head.startswith(b"hsqs"):
        return Kind.SQUASHFS
    if head.startswith(b"QFI\xfb"):
        return Kind.QCOW2
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise BadValueError(f"{path} is {what}", "convert it with `qemu-img convert -O qcow2`")
    if any(head[offset : offset + len(magic)] == magic for offset, magic in _DISKS):
        return Kind.RAW
    raise BadValueError(
        f"{path} is not a root filesystem or disk" if head else f"{path} is empty",
        "accepted are: tar (plain, gzip, xz, zstd, bzip2), squashfs, qcow2, raw disk",
    )
