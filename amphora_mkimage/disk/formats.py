"""From a raw disk to the files that clouds take, and from a tree to a tar."""

from __future__ import annotations

import os
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.console import Console

#: qemu-img's options by image type. qcow2: zstd with large clusters takes a quarter of zlib's time and is smaller; no
#: backing file, no data file and no extended L2, which Nova and Glance refuse. vhd: dynamic, as DIB's, whose
#: header comes first: a fixed one has nothing but a footer, so that Glance and qemu-img take it for raw; force_size, or
#: qemu-img rounds the size up to a disk geometry, and the image does not fit on a flavor's disk of its size.
_CONVERT = {
    "qcow2": ("-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M"),
    "raw": ("-O", "raw"),
    "vhd": ("-O", "vpc", "-o", "subformat=dynamic,force_size=on"),
}


def convert(disk: Path, kind: str, target: int, console: Console) -> None:
    """Write the disk in another format.

    :param disk: raw disk
    :param kind: "qcow2", "raw" or "vhd"
    :param target: descriptor of the file to write
    """
    argv = ["qemu-img", "convert", "-f", "raw", "-m", "4", *_CONVERT[kind], os.fspath(disk), f"/proc/self/fd/{target}"]
    process.run(argv, console, what=f"cannot write the {kind} image", remedy=_SPACE, pass_fds=(target,))


def archive(tree: Path, target: int, console: Console) -> None:
    """Write the tree as a tar that imports as a container's root filesystem.

    Numeric owners and all extended attributes (file capabilities) are kept; /proc, /sys, /dev and /run are empty
    directories. POSIX format without the times that differ between two builds.

    :param target: descriptor of the file to write
    """
    argv = archive_command(f"/proc/self/fd/{target}", os.fspath(tree))
    process.run(argv, console, what="cannot write the tar", remedy=_SPACE, pass_fds=(target,))


def archive_command(file: str, tree: str) -> list[str]:
    """Give the command line that :func:`archive` runs, for where it cannot."""
    argv = ["tar", "--create", f"--file={file}", f"--directory={tree}", "--sort=name"]
    argv += ["--numeric-owner", "--format=posix", "--pax-option=delete=atime,delete=ctime"]
    argv += ["--xattrs", "--xattrs-include=*", "--one-file-system"]
    argv += [f"--exclude=./{name}/*" for name in ("proc", "sys", "dev", "run")]
    return [*argv, "--exclude=./lost+found", "."]  # which is the filesystem's, not the system's


_SPACE = "free some space where the output goes"
