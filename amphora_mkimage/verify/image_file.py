"""The image as a file of this host: its format, its size, and whether it is safe to open.

A disk image can make qemu open other files: a qcow2 names a backing file or an external data file, a VMDK its extents.
From an image that somebody else made that is a way to read this host's files (CVE-2024-32498, CVE-2024-4467), so the
header is read here first, and what names another file is reported and never given to qemu.
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.process import run

GIB = 1 << 30
_QEMU_IMG_SECONDS = 300.0
_INCOMPATIBLE_DATA_FILE = 1 << 2  # qemu, docs/interop/qcow2.txt, "incompatible_features"
_INCOMPATIBLE_EXTENDED_L2 = 1 << 4
_SUFFIXES = ("qcow2", "raw", "img", "vhd", "tar")
_DOWNLOAD_AGAIN = "build or download it again"
_REFUSED = {
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"\xfd7zXZ": "is compressed with xz; decompress it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it first",
    b"BZh": "is compressed with bzip2; decompress it first",
    b"PK\x03\x04": "is a zip archive",
    b"KDMV": "is a VMDK; convert it with `qemu-img convert -O qcow2`",
    b"# Disk DescriptorFile": "is a VMDK; convert it with `qemu-img convert -O qcow2`",
    b"<<< ": "is a VDI; convert it with `qemu-img convert -O qcow2`",
    b"vhdxfile": "is a VHDX; convert it with `qemu-img convert -O qcow2`",
    b"\x7fELF": "is a program",
}


@dataclass(frozen=True)
class Qcow2:
    """What a qcow2's header says that matters to us."""

    version: int
    virtual_size: int
    backing_file: str
    data_file: bool
    encrypted: bool
    extended_l2: bool


@dataclass(frozen=True)
class ImageFile:
    """An image.

    :param format: "qcow2", "raw", "vhd" or "tar"
    :param virtual_size: bytes of the disk that a guest sees; of a tar, its own size
    :param refusal: why it was not opened any further, or ""
    :param damage: what qemu-img's check found, one line each
    """

    path: Path
    format: str
    virtual_size: int
    size: int
    qcow2: Qcow2 | None = None
    refusal: str = ""
    damage: tuple[str, ...] = field(default=())

    @property
    def is_disk(self) -> bool:
        """Tell a disk from a tar."""
        return self.format != "tar"

    @property
    def qemu_format(self) -> str:
        """The name that qemu has for the format."""
        return {"vhd": "vpc"}.get(self.format, self.format)


def identify(path: Path, console: Console) -> ImageFile:
    """Look at a file's own bytes, and let qemu-img look when that is safe.

    :raises BadValueError: there is no such file, or it cannot be read
    :raises MkimageError: it is not an image
    :raises HostError: qemu-img is missing
    """
    try:
        if not path.is_file():
            raise BadValueError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64 << 10)
            file.seek(max(0, size - 512))
            tail = file.read(512)
    except OSError as error:
        raise BadValueError(f"cannot read {path}: {error.strerror}") from error
    kind = _kind(path, size, head, tail)
    if kind == "tar":
        return ImageFile(path, "tar", size, size)
    header = qcow2_header(head, path) if kind == "qcow2" else None
    refusal = refusal_of(header)
    if header is not None and refusal:
        return ImageFile(path, kind, header.virtual_size, size, header, refusal)
    return ask_qemu(ImageFile(path, kind, size, size, header), console)


def _kind(path: Path, size: int, head: bytes, tail: bytes) -> str:
    if size == 0:
        raise MkimageError(f"{path} is empty")
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith(b"conectix") or tail.startswith(b"conectix"):  # a fixed VHD has its footer only
        return "vhd"
    if head[257:262] == b"ustar":
        return "tar"
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise MkimageError(f"{path} is not an amphora image: it {what}")
    if head[0x8001:0x8006] == b"CD001" and head[510:512] != b"\x55\xaa":
        raise MkimageError(f"{path} is not an amphora image: it is a CD image")
    # What is left can only be a raw disk. One that starts has a boot record, with a GPT also: its protective MBR
    # (UEFI specification 5.2.3).
    odd = size % 512 or size < 1 << 20
    if odd or head[510:512] != b"\x55\xaa":
        why = f"no disk has {size} bytes" if odd else "as a raw disk it has no boot record"
        suffix = path.suffix.lower().removeprefix(".")
        named = f"named .{suffix}, but not one, and " if suffix in _SUFFIXES else "neither qcow2 nor vhd nor tar, and "
        raise MkimageError(f"{path} is not an image: {named}{why}", _DOWNLOAD_AGAIN)
    return "raw"


def human_size(size: int) -> str:
    """Return a size as people would say it; exactly, where it is a whole number of GiB."""
    if size >= GIB:
        return f"{size // GIB} GiB" if size % GIB == 0 else f"{size / GIB:.2f} GiB ({size} bytes)"
    return f"{size / (1 << 20):.3g} MiB" if size >= 1 << 20 else f"{size} bytes"


def qcow2_header(head: bytes, path: Path) -> Qcow2:
    """Read a qcow2's header.

    :raises MkimageError: it ends inside
    """
    if len(head) < 104:
        raise MkimageError(f"{path} is a qcow2 that ends inside its header", _DOWNLOAD_AGAIN)
    version, backing_offset, backing_size = struct.unpack_from(">IQI", head, 4)
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    return Qcow2(
        version=version,
        virtual_size=struct.unpack_from(">Q", head, 24)[0],
        # An offset alone makes it a file with a backing file to qemu; the name may lie beyond what we read.
        backing_file=head[backing_offset : backing_offset + min(backing_size, 1023)].decode(errors="replace") or "?"
        if backing_offset
        else "",
        data_file=bool(features & _INCOMPATIBLE_DATA_FILE),
        encrypted=struct.unpack_from(">I", head, 32)[0] != 0,
        extended_l2=bool(features & _INCOMPATIBLE_EXTENDED_L2),
    )


def refusal_of(header: Qcow2 | None) -> str:
    """Tell why qemu must not open an image with this header, or ""."""
    if header is None:
        return ""
    if header.backing_file:
        return f"it is an overlay over another file, {header.backing_file!r}"
    if header.data_file:
        return "its data lies in another file"
    return "it is encrypted" if header.encrypted else ""


def ask_qemu(image: ImageFile, console: Console) -> ImageFile:
    """Let qemu-img tell the virtual size and check the file's structure.

    :raises MkimageError: it cannot
    :raises HostError: qemu-img is missing
    """
    facts = _qemu_img("info", image, console)
    try:
        virtual_size = int(facts["virtual-size"])
    except (KeyError, TypeError, ValueError) as error:
        raise MkimageError(f"{image.path}: qemu-img does not tell its virtual size") from error
    damage: tuple[str, ...] = ()
    if image.format == "qcow2":
        damage = _damage(_qemu_img("check", image, console, fails=True))
    return ImageFile(image.path, image.format, virtual_size, image.size, image.qcow2, damage=damage)


def _damage(report: dict[str, Any]) -> tuple[str, ...]:
    counts = {key: report.get(key) for key in ("corruptions", "check-errors")}
    return tuple(f"{count} {key.replace('-', ' ')}" for key, count in counts.items() if count)


def _qemu_img(command: str, image: ImageFile, console: Console, *, fails: bool = False) -> dict[str, Any]:
    """Run qemu-img on the image and read its JSON.

    :param fails: a status that is not 0 is a result, too
    """
    argv = ["qemu-img", command, "--output=json", "-f", image.qemu_format, str(image.path.resolve())]
    if shutil.which("prlimit"):
        # As Nova does: a crafted image may make qemu-img take all memory or never end.
        argv = ["prlimit", f"--as={8 * GIB}", "--cpu=120", *argv]
    what = f"{image.path} cannot be read as {image.format}"
    try:
        printed = run(argv, console, what=what, remedy=_DOWNLOAD_AGAIN, deadline=_QEMU_IMG_SECONDS)
    except HostError:
        raise
    except MkimageError as error:
        printed = "\n".join(error.tail)
        if shutil.which("qemu-img") is None:
            raise HostError("qemu-img is not installed", "install qemu-utils") from error
        if not fails or "{" not in printed:
            raise
    try:
        report = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    except ValueError as error:
        raise MkimageError(f"{what}: qemu-img's answer makes no sense", tail=printed.splitlines()[-10:]) from error
    return report if isinstance(report, dict) else {}
