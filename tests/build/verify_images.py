"""Small real disks around the tree of tests/unit/verify_tree.py, made without an appliance and without privilege."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from verify_tree import UUID, TreeBuilder

MIB = 1 << 20
ROOT_LABEL = "cloudimg-rootfs"
GPT = """\
label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649
size=33MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
"""
TWO_SYSTEMS = """\
label: gpt
size=400MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
"""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def tool(*argv: str | Path, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(
        argv, input=stdin, env={"PATH": PATH, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def partition(disk: Path, table: str, size: int) -> list[tuple[int, int]]:
    """Make a sparse disk; (offset, size) of its partitions in bytes."""
    with disk.open("wb") as file:
        file.truncate(size)
    tool("sfdisk", "--quiet", disk, stdin=table)
    entries = json.loads(tool("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    return [(entry["start"] * 512, entry["size"] * 512) for entry in entries]


def make_ext4(tree: TreeBuilder, disk: Path, where: tuple[int, int], scratch: Path, uuid: str = UUID) -> None:
    directory = tree.unpack(scratch / f"tree-{where[0]}")
    options = f"offset={where[0]},lazy_itable_init=0,root_owner=0:0"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", ROOT_LABEL, "-U", uuid, "-E", options, "-d"]
    tool(*argv, directory, disk, f"{where[1] // 1024}k")


def make_esp(files: dict[str, str], disk: Path, where: tuple[int, int], scratch: Path) -> None:
    image = scratch / "esp.img"
    with image.open("wb") as file:
        file.truncate(where[1])
    tool("mkfs.vfat", "-n", "UEFI", image)
    for directory in ("EFI", "EFI/BOOT", "EFI/debian"):
        tool("mmd", "-i", image, f"::{directory}")
    for name, content in files.items():
        (scratch / "file").write_text(content)
        tool("mcopy", "-i", image, scratch / "file", f"::{name}")
    with disk.open("r+b") as file:
        file.seek(where[0])
        file.write(image.read_bytes())


def write(disk: Path, offset: int, content: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def embed_grub(disk: Path, sector: int) -> None:
    """What marks GRUB's boot sector and its core image (see partition_table.grub_core_problem)."""
    write(disk, 0x5C, struct.pack("<Q", sector))
    write(disk, 0x180, b"GRUB")
    write(disk, sector * 512, b"\x52")
    write(disk, (sector + 1) * 512 - 12, struct.pack("<QHH", sector + 1, 60, 0x820))
    write(disk, (sector + 1) * 512, b"\x52" * 512)


ESP_FILES = {
    "EFI/BOOT/BOOTX64.EFI": "MZ",
    "EFI/BOOT/grubx64.efi": "MZ",
    "EFI/debian/grub.cfg": f"search.fs_uuid {UUID} root\nconfigfile /boot/grub/grub.cfg\n",
}


def make_image(
    tree: TreeBuilder, disk: Path, scratch: Path, esp: dict[str, str] | None = None
) -> list[tuple[int, int]]:
    """A disk of 1 GiB like the tool's own; the places of its partitions."""
    places = partition(disk, GPT, 1 << 30)
    make_esp(ESP_FILES if esp is None else esp, disk, places[1], scratch)
    make_ext4(tree, disk, places[2], scratch)
    embed_grub(disk, places[0][0] // 512)
    return places


def debugfs(disk: Path, offset: int, *commands: str) -> None:
    """Change an ext4 on a disk without mounting it."""
    for command in commands:
        tool("debugfs", "-w", "-R", command, f"{disk}?offset={offset}")
