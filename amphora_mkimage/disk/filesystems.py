"""Fill filesystems from a tree, on plain files: mke2fs -d, mtools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.disk.layout import MIB, Extent
from amphora_mkimage.disk.tools import splice, tool
from amphora_mkimage.errors import BadValueError, MkimageError

ROOT_LABEL = "cloudimg-rootfs"  # what DIB calls it, and what fstab and GRUB of an amphora look for
ESP_LABEL = "UEFI"

#: Pinned, because the host's mke2fs.conf may switch on what the guest's kernel, GRUB or e2fsck do not know yet; these
#: are the
#: features of Debian 12's e2fsprogs (ext4(5)).
_EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)


def make_root(tree: Path | None, disk: Path, where: Extent, uuid: str, console: Console) -> None:
    """Make the root filesystem on the disk, holding the tree with owners, modes and extended attributes.

    :param tree: None makes an empty one, for an appliance to fill
    :raises BadValueError: the content does not fit
    """
    # The file is a hole where nothing was written, so inode tables need no zeroing now, nor by the first boot.
    options = f"offset={where.offset},assume_storage_prezeroed=1,lazy_itable_init=0,root_owner=0:0"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", _EXT4_FEATURES, "-E", options, "-L", ROOT_LABEL, "-U", uuid]
    # -b and -I as well: mke2fs.conf would choose smaller ones for a small disk.
    argv += ["-b", "4096", "-I", "256", "-m", "1"]
    content: list[str | Path] = [] if tree is None else ["-d", tree]
    try:
        tool([*argv, *content, disk, f"{where.size // 1024}k"], console, "cannot make the root filesystem")
    except MkimageError as error:
        if any("Could not allocate block" in line or "no free space" in line.lower() for line in error.tail):
            raise BadValueError("-s: the content does not fit on the disk", "choose a larger size") from error
        raise


def make_esp(files: Mapping[str, Path], disk: Path, where: Extent, scratch: Path, console: Console) -> None:
    """Make the EFI system partition on the disk.

    :param files: what goes on it, by path ("EFI/BOOT/BOOTX64.EFI"); an appliance may add more
    :param scratch: directory for the partition's own image
    """
    image = scratch / "esp.img"
    with image.open("wb") as file:
        file.truncate(where.size)
    tool(["mkfs.vfat", "-n", ESP_LABEL, image], console, "cannot make the EFI system partition")
    directories = sorted({str(parent) for path in files for parent in Path(path).parents if str(parent) != "."})
    if directories:
        names = [f"::{name}" for name in directories]
        tool(["mmd", "-i", image, *names], console, "cannot fill the EFI system partition")
    for path, source in files.items():
        tool(["mcopy", "-i", image, source, f"::{path}"], console, "cannot fill the EFI system partition")
    splice(image, disk, where.offset)
    image.unlink()


def make_volume(tree: Path, image: Path, console: Console) -> None:
    """Make an ext4 filesystem in a file of its own, just large enough for a directory, to be read only."""
    sizes = [path.lstat().st_size for path in tree.rglob("*")]
    blocks = sum(size // 4096 + 2 for size in sizes)  # a block more each, for directories and extents
    # Without a journal and with inodes for what there is: the rest is bitmaps and group descriptors, a few blocks each
    # 128 MiB. The file is a hole where nothing is written, so there is no need to be exact.
    inodes = len(sizes) + 64
    size = blocks * 4096 + inodes * 256 + blocks * 4096 // 16 + 4 * MIB
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-b", "4096", "-m", "0"]
    argv += ["-I", "256", "-N", str(inodes), "-d"]
    tool([*argv, tree, image, f"{size // 1024}k"], console, "cannot pack files for the appliance")


def make_scratch(image: Path, size: int, console: Console) -> None:
    """Make an empty ext4 filesystem in a file of its own, without regard to a crash.

    :param size: in bytes; the file is a hole where nothing was written
    """
    with image.open("wb") as file:
        file.truncate(size)
    options = "assume_storage_prezeroed=1,lazy_itable_init=0,root_owner=0:0"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", options, "-m", "0"]
    tool([*argv, image], console, "cannot make room for the appliance's downloads")


def needed_bytes(installed: int) -> int:
    """Estimate the root partition that content of a given size needs: with journal, inodes, reserve and some logs."""
    return installed + installed // 10 + 128 * MIB
