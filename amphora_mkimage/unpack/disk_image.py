"""Get the root filesystem tree out of a disk image, through libguestfs and an attached disk.

The appliance mounts the image's filesystems and writes a tar onto a second disk, a sparse file of this host. The way
out of libguestfs itself (``tar-out``, ``virt-tar-out``) is its RPC, in pieces of 8 KiB; see benchmarks/disk_out.md.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from amphora_mkimage import accelerator
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.unpack import system
from amphora_mkimage.unpack.kinds import Kind
from amphora_mkimage.unpack.stream import REMEDY, Limits
from amphora_mkimage.unpack.tar_format import printable
from amphora_mkimage.verify import image_file
from amphora_mkimage.verify.appliance import SCRATCH, Appliance
from amphora_mkimage.verify.tree import TreeError

#: For the launch and the copy together. A gigabyte takes minutes under emulation.
DEADLINE_SECONDS = 3600.0
#: Cloud images have 2 to 10 GiB. A header that says more costs memory in qemu for nothing.
MAX_DISK = 256 << 30
_HEAD = 64 << 10
#: What a boot fills, and what the filesystem's own checker does.
_LEFT_OUT = ("./proc/*", "./sys/*", "./dev/*")
_ATTRIBUTES = ("security.capability", "system.posix_acl_*", "user.*")
_STDERR = "/tmp/tar-stderr"  # noqa: S108 (the appliance's)


def disk(
    path: Path,
    kind: Kind,
    target: Path,
    limits: Limits,
    console: Console,
    deadline: float = DEADLINE_SECONDS,
    scratch: Path | None = None,
) -> str:
    """Write the tree of the operating system on a disk as a plain tar, for :func:`amphora_mkimage.unpack.tar`.

    It needs no privilege and no namespace; where users' KVM and libguestfs' caches are theirs, it is best run outside.

    :param kind: :attr:`Kind.QCOW2` or :attr:`Kind.RAW`, never guessed: a raw disk may start like a qcow2
    :param target: a file that does not exist; it takes as much space as the tree
    :param limits: the size that the tar may have
    :param deadline: seconds
    :param scratch: directory for libguestfs' temporary files (default: TMPDIR)
    :return: the system's name, as os-release(5) has it
    :raises MkimageError: the image is refused or damaged, or has no operating system or several; then no target is left
    :raises HostError: libguestfs or qemu cannot do it on this host
    """
    image = _checked(path, kind, console)
    chosen = accelerator.choose(console)
    with target.open("xb") as file:
        file.truncate(limits.total // 512 * 512)
    try:
        with Appliance(path, image.qemu_format, chosen, console, deadline, target, tmpdir=scratch) as appliance:
            try:
                with console.step("Finding the operating system"):
                    found, places = system.mount(appliance)
                console.note(f"found {found.name}")
                with console.step("Copying its files"):
                    size = _write_tar(appliance, places, limits, path.name)
            except TreeError as error:
                what = printable(f"{path.name} cannot be read: {error}")
                raise MkimageError(what, REMEDY, tail=error.tail) from error
        os.truncate(target, size)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return found.name


def _checked(path: Path, kind: Kind, console: Console) -> image_file.ImageFile:
    """Look at the image without qemu, and then with qemu-img."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = os.fstat(file.fileno()).st_size
    header = image_file.qcow2_header(head, path) if kind is Kind.QCOW2 else None
    refusal = image_file.refusal_of(header)
    if header is not None and header.version not in (2, 3):
        refusal = f"it is a qcow2 of version {header.version}"
    disk_size = size if header is None else header.virtual_size
    if not refusal and disk_size > MAX_DISK:
        refusal = f"its disk has {disk_size >> 30} GiB, more than the {MAX_DISK >> 30} GiB that are accepted"
    if refusal:
        raise MkimageError(f"{path.name} is not opened: {refusal}", "use an image that is a single file by itself")
    image = image_file.ask_qemu(image_file.ImageFile(path, kind.value, disk_size, size, header), console)
    if image.damage:
        raise MkimageError(f"{path.name} is damaged: {', '.join(image.damage)}", REMEDY)
    return image


def _write_tar(appliance: Appliance, places: list[str], limits: Limits, title: str) -> int:
    """Run tar in the appliance, with the scratch disk for its file; its size."""
    # posix is the format that has attributes; without options it would write three times for each file.
    argv = ["tar", "--create", f"--file={SCRATCH}", "--blocking-factor=2048", "--totals", "--directory=/sysroot"]
    argv += ["--format=posix", "--pax-option=delete=atime,delete=ctime", "--numeric-owner", "--xattrs"]
    argv += [f"--xattrs-include={name}" for name in _ATTRIBUTES]
    argv += ["--anchored", *(f"--exclude={pattern}" for pattern in _LEFT_OUT)]
    argv += [f"--exclude=.{place.rstrip('/')}/lost+found" for place in places]
    command = f'"$@" 2>{_STDERR}; status=$?; sync; tail -c 4000 {_STDERR}; (exit $status)'
    status, printed = appliance.shell(command, *argv, ".")
    total = re.search(r"^Total bytes written: (\d+)", printed, re.MULTILINE)
    lines = printed.splitlines()[-10:]
    if "No space left on device" in printed or "Wrote only" in printed:  # the latter when part of a record fits
        raise MkimageError(
            f"{title} is not unpacked: it has more than {limits.total / (1 << 30):.1f} GiB of files", REMEDY
        )
    if status != 0 or total is None:
        raise MkimageError(f"{title} cannot be read: tar ended with status {status}", REMEDY, tail=lines)
    return int(total[1])
