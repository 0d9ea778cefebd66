"""Does the disk start: bootloader, its configuration, and the root filesystem that it and fstab name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage.architecture import ARCHITECTURES, Architecture
from amphora_mkimage.verify import fstab
from amphora_mkimage.verify.boot_config import BootEntry
from amphora_mkimage.verify.guest_disk import Filesystem, GuestDisk
from amphora_mkimage.verify.partition_table import PREP, grub_core_problem
from amphora_mkimage.verify.result import Check, Finding, fail, info, not_applicable, passed, warn
from amphora_mkimage.verify.subject import Subject


def _disk(subject: Subject) -> GuestDisk:
    assert subject.disk is not None
    return subject.disk


def _architecture(subject: Subject) -> Architecture:
    return subject.architecture or ARCHITECTURES["amd64"]


def bios(subject: Subject) -> Iterator[Finding]:
    """Check what firmware loads from outside of filesystems: the boot sector and its core image, a PReP partition."""
    disk = _disk(subject)
    table = disk.table
    architecture = _architecture(subject)
    if architecture.open_firmware:
        prep = table.of_type(PREP, "0x41")
        if prep is None or disk.appliance.read_disk(prep.start, 4) != b"\x7fELF":
            yield fail("there is no PReP partition with a boot loader", "the image does not start: build it again")
        else:
            yield passed("GRUB in the PReP partition")
    elif not architecture.bios:
        yield not_applicable(f"{architecture.name} has no BIOS")
    elif not any(table.boot_code):
        yield warn("there is no boot code in the MBR: the image starts under UEFI only")
    elif b"GRUB" in table.boot_code:
        problem = grub_core_problem(table, disk.appliance.read_disk)
        if problem:
            yield fail(problem, "the image does not start under BIOS: build it again")
        else:
            yield passed("GRUB in the MBR and its core image")
    elif not any(partition.active for partition in table.partitions):
        yield fail("the MBR's boot code is not GRUB's, and no partition is active")
    else:
        yield info("the MBR's boot code is not GRUB's; what it loads was not checked")


def efi(subject: Subject) -> Iterator[Finding]:
    """Check the loader of the removable-media path, the only one that a new machine's firmware looks for."""
    disk = _disk(subject)
    architecture = _architecture(subject)
    if architecture.efi is None:
        yield not_applicable(f"{architecture.name} has no UEFI")
        return
    suffix = architecture.efi.suffix
    wanted = f"/efi/boot/boot{suffix}.efi"
    severity = warn if architecture.bios else fail
    if disk.table.esp is None:
        yield severity("there is no EFI system partition: the image does not start under UEFI")
    elif wanted not in disk.esp_files:
        yield fail(f"the EFI system partition has no {wanted.upper()}", "the image does not start under UEFI")
    elif f"/efi/boot/grub{suffix}.efi" in disk.esp_files:
        # A signed GRUB looks for EFI/<distribution>/grub.cfg, and has no other idea of where its root is.
        if any(path.endswith("/grub.cfg") for path in disk.esp_files):
            yield passed("shim and GRUB")
        else:
            yield fail("the EFI system partition has no grub.cfg: GRUB stops at its prompt", "build it again")


def configuration(subject: Subject) -> Iterator[Finding]:
    """Ask for something to boot."""
    if not subject.boot_entries:
        yield fail("no bootloader configuration names a kernel", "looked for GRUB's, BLS entries and extlinux's")
        return
    first = subject.boot_entries[0]
    yield passed(f"{first.source}: {first.kernel}")


def searched_filesystems(subject: Subject) -> Iterator[Finding]:
    """Check that each UUID that GRUB searches is there."""
    if not subject.grub_configs:
        yield not_applicable("no GRUB")
    disk = _disk(subject)
    known = {filesystem.facts.get("UUID", "").lower() for filesystem in disk.filesystems}
    reported = set()
    for config in subject.grub_configs:
        named = [*config.search, *(uuid for entry in config.entries for uuid in entry.filesystem_uuids)]
        for uuid in named:
            if uuid.lower() not in known and uuid not in reported:
                reported.add(uuid)
                yield fail(f"GRUB searches a filesystem {uuid} that is not on this disk", "GRUB stops at its prompt")
    expected = subject.expected.filesystem_uuid
    root = disk.root
    if expected and root and root.facts.get("UUID") != expected:
        yield fail(f"the root filesystem is {root.facts.get('UUID')}, but the manifest says {expected}")


def root_argument(subject: Subject) -> Iterator[Finding]:
    """Check that root= names the root filesystem."""
    root = _disk(subject).root
    assert root is not None
    if not subject.boot_entries:
        yield not_applicable("the bootloader names no kernel")
    seen = set()
    for entry in subject.boot_entries:
        value = entry.option("root")
        if value in seen:
            continue
        seen.add(value)
        if value is None:
            yield fail(f"{entry.source}: no root= for {entry.kernel}")
        elif not fstab.names(value, root.facts, root.device):
            yield fail(f"root={value} is not the root filesystem", _found(root))
        elif value.startswith("/dev/") and not value.startswith("/dev/mapper/"):
            yield warn(f"root={value} holds on one kind of disk only", "name it by LABEL or UUID")
        else:
            yield passed(f"root={value}")


def _found(root: Filesystem) -> str:
    return f"found: LABEL={root.facts.get('LABEL', '')} UUID={root.facts.get('UUID', '')}"


def fstab_root(subject: Subject) -> Iterator[Finding]:
    """Check that fstab's root is the root filesystem, and that it names nothing else that is missing."""
    disk = _disk(subject)
    assert disk.root is not None
    entries = [entry for entry in fstab.parse_fstab(subject.tree.text("/etc/fstab")) if entry.mountpoint == "/"]
    if not entries:
        yield warn("fstab has no root: it stays as the kernel mounted it, read-only where the command line says ro")
    for entry in entries:
        if not fstab.names(entry.spec, disk.root.facts, disk.root.device):
            yield fail(f"fstab has {entry.spec} on /, which is not the root filesystem", _found(disk.root))
        elif entry.type not in (disk.root.type, "auto"):
            yield fail(f"fstab says that the root is {entry.type}; it is {disk.root.type}")
        else:
            yield passed(entry.spec)
    for line in disk.unmounted:
        yield fail(f"fstab names {line}, which is not on this disk", "systemd waits 90 s for it and then gives up")


#: Arguments that an amphora must not have, what they cost, and how much that matters.
_HARMFUL = {
    r"network-config=disabled": ("cloud-init configures no network", fail),
    r"(?:ci\.)?ds=(?!ConfigDrive)\S+": ("cloud-init reads no other data source", fail),
    r"systemd\.unit=(?!multi-user|graphical)\S+": ("systemd starts something else", fail),
    r"(?:rd\.)?init=(?!/sbin/init|/lib/systemd|/usr/lib/systemd)\S+": ("systemd is not started", fail),
    r"emergency|rd\.break|systemd\.(?:debug_shell|confirm_spawn)\S*": ("the start stops, or waits for somebody", fail),
    r"ipv6\.disable=1": ("IPv6 addresses fail", warn),
    r"(?:module|modprobe\.)_?blacklist=\S*\b(?:virtio|ip_vs|brd|dm_crypt|isofs|nf_|nft_)\S*": (
        "modules are missing",
        fail,
    ),
    r"maxcpus=[01]|nosmp": ("one processor is used", warn),
}


def command_line(subject: Subject) -> Iterator[Finding]:
    """Check what else the kernel is told."""
    entry = subject.boot_entries[0] if subject.boot_entries else None
    if entry is None:
        yield not_applicable("the bootloader names no kernel")
        return
    if not re.search(r"(?:^|\s)console=(?:ttyS|ttyAMA|hvc)\d", entry.options):
        yield warn("no console= for a serial port: `openstack console log show` stays empty")
    if entry.option("cloud-init") == "disabled":
        yield fail("cloud-init=disabled on the kernel command line", "an amphora gets its configuration by cloud-init")
    for pattern, (cost, severity) in _HARMFUL.items():
        found = re.search(rf"(?:^|\s)({pattern})(?=\s|$)", entry.options)
        if found:
            yield severity(f"{found[1]} on the kernel command line: {cost}", f"{entry.source} has it")
    yield from _pinning(subject, entry)


def _pinning(subject: Subject, entry: BootEntry) -> Iterator[Finding]:
    missing = [name for name in ("irqaffinity", "isolcpus", "nohz_full") if entry.option(name) is None]
    if subject.expected.cpu_pinning and missing:
        yield fail(f"CPU pinning was asked for, but {', '.join(missing)} is not on the kernel command line")
    elif subject.expected.cpu_pinning is False and entry.option("isolcpus"):
        yield warn("isolcpus= is on the kernel command line, though CPU pinning was not asked for")


GROUP = "boot"
CHECKS = (
    Check("boot.config", GROUP, "bootloader configuration", configuration, disk=True, in_build=True),
    Check("boot.bios", GROUP, "starts under BIOS or Open Firmware", bios, disk=True),
    Check("boot.efi", GROUP, "starts under UEFI", efi, disk=True),
    Check("boot.search", GROUP, "GRUB finds its filesystem", searched_filesystems, disk=True),
    Check("boot.root", GROUP, "kernel finds its root", root_argument, disk=True),
    Check("boot.fstab", GROUP, "fstab matches the disk", fstab_root, disk=True),
    Check("boot.command-line", GROUP, "kernel command line", command_line, disk=True, in_build=True),
)
