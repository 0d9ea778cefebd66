"""Recognise kernels and initramfs by their own bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

#: What the start of a kernel must hold for :func:`kernel_kind`: the x86 boot sector and setup code.
HEAD_BYTES = 64 << 10
_CPIO_HEADER = 110
_CPIO_ENTRY_LIMIT = 500

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"\x5d\x00\x00": "lzma",
    b"\x89LZO": "lzop",
}
_CPIO = (b"070701", b"070702")

#: Kernels of other architectures than x86: offset and text by which they are known.
_KERNELS = (
    (56, b"ARM\x64", "arm64 Image"),  # Documentation/arch/arm64/booting.rst
    (36, b"\x18\x28\x6f\x01", "arm zImage"),  # arch/arm/boot/compressed/head.S
    (4, b"zimg", "EFI zboot image"),  # drivers/firmware/efi/libstub/zboot-header.S
    (0, b"\x1f\x8b", "gzip image"),  # arm64's vmlinuz before zboot
    (0, b"\x7fELF", "ELF kernel"),  # ppc64le
)

ReadAt = Callable[[int, int], bytes]


def kernel_kind(head: bytes) -> tuple[str, str]:
    """Tell what kind of kernel a file starts like, and its version where it says it.

    :returns: ("", "") for what is not a kernel; a version of "" where the format has none
    """
    # Documentation/arch/x86/boot.rst: "HdrS" at 0x202, pointer to the version's text (less 0x200) at 0x20e.
    if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        pointer = struct.unpack_from("<H", head, 0x20E)[0]
        text = head[pointer + 0x200 :][:256].split(b"\0")[0] if pointer else b""
        words = text.decode("ascii", "replace").split()
        return "bzImage", words[0] if words else ""
    return next((kind for offset, magic, kind in _KERNELS if head.startswith(magic, offset)), ""), ""


def compression(head: bytes) -> str:
    """Name the compression that a segment of an initramfs starts with: "cpio" for none, "" for what is neither."""
    if head.startswith(_CPIO):
        return "cpio"
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), "")


def segments(read: ReadAt, size: int) -> Iterator[tuple[int, str]]:
    """Find the segments of an initramfs: (offset, compression), up to and with the first compressed one.

    An initramfs is cpio archives one after the other, each compressed or not; microcode comes first and plain
    (Documentation/driver-api/early-userspace/buffer-format.rst, Documentation/arch/x86/microcode.rst).

    :param read: gives bytes of the file by offset and size
    """
    offset = 0
    while offset < size:
        head = read(offset, 16)
        kind = compression(head)
        if not kind:
            return
        yield offset, kind
        if kind != "cpio":
            return
        end = _cpio_end(read, offset, size)
        if end is None:
            return
        offset = _skip_zeros(read, end, size)


def _cpio_end(read: ReadAt, offset: int, size: int) -> int | None:
    """Follow the headers of a plain cpio to its trailer; None when there are too many or they are broken."""
    for _ in range(_CPIO_ENTRY_LIMIT):
        header = read(offset, _CPIO_HEADER + 16)
        if not header.startswith(_CPIO) or not re.fullmatch(rb"[0-9A-Fa-f]{104}", header[6:_CPIO_HEADER]):
            return None
        file_size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        is_trailer = header[_CPIO_HEADER:].startswith(b"TRAILER!!!\0")
        offset += (_CPIO_HEADER + name_size + 3) // 4 * 4
        offset += (file_size + 3) // 4 * 4
        if is_trailer:
            return offset
        if offset > size:
            return None
    return None


def _skip_zeros(read: ReadAt, offset: int, size: int) -> int:
    while offset < size:
        block = read(offset, 4096)
        rest = block.lstrip(b"\0")
        if rest:
            return offset + len(block) - len(rest)
        offset += len(block) or 1
    return offset
