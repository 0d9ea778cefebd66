"""The file, the partitions, the filesystems, and that there is one operating system on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from amphora_mkimage.verify.image_file import GIB, human_size
from amphora_mkimage.verify.result import Check, Finding, fail, info, not_applicable, passed, warn
from amphora_mkimage.verify.subject import Subject

_FREE_BYTES = 256 << 20
_VHD_ROUNDING = 16 << 20  # without force_size, qemu-img rounds a VHD up to a disk geometry


def file_format(subject: Subject) -> Iterator[Finding]:
    """Compare with the manifest, and refuse what Nova and Glance would."""
    image, expected = subject.image, subject.expected.format
    if expected and image.format != expected:
        yield fail(f"it is {image.format}, but the manifest says {expected}", "do not rename or convert it in place")
    if image.refusal:
        yield fail(image.refusal, "make it self-contained with `qemu-img convert`; nothing else was looked at")
    if image.qcow2 and image.qcow2.extended_l2:
        yield warn("it uses extended L2 entries, which older qemu and Nova cannot read")
    yield passed(image.format)


def file_intact(subject: Subject) -> Iterator[Finding]:
    """Report what qemu-img's own check found; an archive was read to its end to come here."""
    if subject.image.format in ("raw", "vhd"):
        yield not_applicable(f"{subject.image.format} has no structure to check")
    for line in subject.image.damage:
        yield fail(f"qemu-img check finds {line}", "the file is damaged or cut off: build or download it again")


def file_manifest(subject: Subject) -> Iterator[Finding]:
    """Check that the file is the one that the manifest describes."""
    expected = subject.expected
    if expected.problem:
        yield fail(f"{expected.manifest} {expected.problem}", "build again, or remove it")
    elif expected.manifest is None:
        yield not_applicable("no manifest beside it; expecting what every amphora has")
    elif expected.sha256:
        with subject.image.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected.sha256.lower():
            yield fail("its SHA256 is not the manifest's: it was changed after it was built")


def file_size(subject: Subject) -> Iterator[Finding]:
    """Compare the virtual size."""
    image, expected = subject.image, subject.expected.virtual_size
    if not image.is_disk:
        yield not_applicable("a tar has no disk")
        return
    size = image.virtual_size
    rounded = image.format == "vhd" and 0 < size - (expected or size // GIB * GIB) <= _VHD_ROUNDING
    if rounded:
        yield warn(f"{human_size(size)}: the VHD was rounded up to a disk geometry")
    elif expected and size != expected:
        yield fail(
            f"{human_size(size)}, expected {human_size(expected)}",
            "build it again with the size (-s) of the flavor's disk",
        )
    elif size % GIB:
        yield warn(
            f"{human_size(size)} is not a whole number of GiB: it needs a flavor with a disk of {size // GIB + 1}"
        )
    yield passed(human_size(size))


def archive_entries(subject: Subject) -> Iterator[Finding]:
    """Report what a careful unpacker refuses."""
    if subject.archive is None:
        yield not_applicable("no tar")
        return
    for problem in subject.archive.problems:
        yield fail(problem, "do not unpack this archive as root")
    yield passed(f"{subject.archive.count} entries")


def partition_table(subject: Subject) -> Iterator[Finding]:
    """Report what is wrong with the partition table."""
    assert subject.disk is not None
    table = subject.disk.table
    for problem in table.problems:
        yield fail(problem, "the image is damaged or cut off: build or download it again")
    if not table.kind:
        yield warn("there is no partition table: the disk cannot start by itself")
    yield passed(f"{table.kind.upper() or 'none'}, {len(table.partitions)} partitions")


def operating_system(subject: Subject) -> Iterator[Finding]:
    """Ask for exactly one."""
    if subject.disk is None:
        if subject.root is None:
            yield fail("there is no operating system in it", "is it the tar of a root filesystem?")
        return
    roots = subject.disk.roots
    if not roots:
        yield fail("there is no operating system on it", "is this the disk of an amphora, complete and not encrypted?")
    elif len(roots) > 1:
        yield fail(f"there are {len(roots)} operating systems on it: {', '.join(roots)}", "an amphora has one")


def filesystems_clean(subject: Subject) -> Iterator[Finding]:
    """Report the verdict of each filesystem's own checker, which repaired nothing."""
    assert subject.disk is not None
    checked = []
    for filesystem in subject.disk.filesystems:
        what = f"{filesystem.type} on {filesystem.device}"
        if filesystem.clean is False:
            lines = filesystem.report.splitlines() or ["no explanation"]
            telling = next((line for line in lines if "WARNING" in line or "?" in line), lines[-1])
            yield fail(f"{what}: {telling.strip()}", "build the image again; do not repair it by hand")
        elif filesystem.clean:
            checked.append(what)
        elif filesystem.mountable:
            reason = filesystem.report.splitlines()[-1:] or ["no checker for it"]
            yield info(f"{what} could not be checked here: {reason[0]}")
    yield passed(", ".join(checked))


def filesystems_mount(subject: Subject) -> Iterator[Finding]:
    """Report what did not mount."""
    assert subject.disk is not None
    for filesystem in subject.disk.filesystems:
        if filesystem.mount_error:
            yield fail(f"{filesystem.type} on {filesystem.device}: {filesystem.mount_error.splitlines()[0]}")
        if filesystem.type == "crypto_LUKS":
            yield info(f"{filesystem.device} is encrypted; it was not looked at")
    if not any(filesystem.mountable for filesystem in subject.disk.filesystems):
        yield fail("there is no filesystem on it")


def free_space(subject: Subject) -> Iterator[Finding]:
    """Ask for room for logs, which growpart may add only where the flavor's disk is larger."""
    assert subject.disk is not None
    free = subject.disk.free
    if free < _FREE_BYTES:
        yield warn(f"{free >> 20} MiB free: HAProxy's logs fill that soon", "build with a larger size (-s)")
    yield passed(f"{free >> 20} MiB free")


GROUP = "image"
CHECKS = (
    Check("image.format", GROUP, "one self-contained file", file_format, guest=False),
    Check("image.intact", GROUP, "file structure intact", file_intact, guest=False),
    Check("image.manifest", GROUP, "file is what its manifest describes", file_manifest, guest=False),
    Check("image.size", GROUP, "virtual size", file_size, guest=False),
    Check("archive.entries", GROUP, "archive unpacks safely", archive_entries, guest=False),
    Check("disk.partitions", "disk", "partition table", partition_table, guest=False, disk=True),
    Check("disk.filesystems", "disk", "filesystems clean", filesystems_clean, guest=False, disk=True),
    Check("disk.mounts", "disk", "filesystems mount", filesystems_mount, guest=False, disk=True),
    Check("disk.system", "disk", "one operating system", operating_system, guest=False),
    Check("disk.space", "disk", "room for logs", free_space, disk=True),
)
