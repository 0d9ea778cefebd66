"""Find filesystems and the operating system on a disk, check each filesystem, and mount what belongs together."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from amphora_mkimage.console import Console
from amphora_mkimage.verify import fstab
from amphora_mkimage.verify.appliance import Appliance, ApplianceTree
from amphora_mkimage.verify.partition_table import PartitionTable, parse
from amphora_mkimage.verify.tree import TreeError, is_root

#: nodev, nosuid, noexec: nothing of the guest's is ever run or opened as a device.
MOUNT_OPTIONS = "ro,nodev,nosuid,noexec"
_SUBVOLUME_LIMIT = 32
_ESP_FILE_LIMIT = 256 << 10
_NO_FILESYSTEM = ("swap", "LVM2_member", "crypto_LUKS", "linux_raid_member", "BitLocker")

#: How each filesystem is checked without repairing: the command, and the exit statuses that mean "clean".
_CHECKERS = {
    "ext2": ('e2fsck -f -n "$1"', (0,)),
    "ext3": ('e2fsck -f -n "$1"', (0,)),
    "ext4": ('e2fsck -f -n "$1"', (0,)),
    "vfat": ('fsck.fat -n "$1"', (0,)),
    "xfs": ('xfs_repair -n "$1"', (0,)),
    "btrfs": ('btrfs check --readonly "$1"', (0,)),
}


@dataclass
class Filesystem:
    """A filesystem.

    :param facts: what blkid(8) says
    :param clean: what its checker said; None when it could not tell
    :param report: the checker's last words
    :param mount_error: why it does not mount, or ""
    :param mountpoint: in the guest, "" when the guest does not mount it
    """

    device: str
    facts: dict[str, str]
    clean: bool | None = None
    report: str = ""
    mount_error: str = ""
    mountpoint: str = ""

    @property
    def type(self) -> str:
        """The type as blkid names it, "" for none."""
        return self.facts.get("TYPE", "")

    @property
    def mountable(self) -> bool:
        """Tell whether it should mount."""
        return bool(self.type) and self.type not in _NO_FILESYSTEM


@dataclass
class GuestDisk:
    """What was found on a disk.

    :param roots: mountables (device, or btrfs subvolume) with an operating system on them
    :param root: the filesystem of the only one
    :param esp_files: lower-case paths on the EFI system partition
    :param esp_configs: the text of GRUB's configuration files there, by path
    :param unmounted: lines of fstab that name nothing on this disk
    :param free: bytes free on the root filesystem; ``size``: its bytes
    """

    appliance: Appliance
    table: PartitionTable
    filesystems: list[Filesystem] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    root: Filesystem | None = None
    esp_files: list[str] = field(default_factory=list)
    esp_configs: dict[str, str] = field(default_factory=dict)
    unmounted: list[str] = field(default_factory=list)
    free: int = 0
    size: int = 0
    tree: ApplianceTree | None = None


def examine(appliance: Appliance, disk_size: int, console: Console) -> GuestDisk:
    """Look at everything on the disk, and leave the guest's filesystems mounted for the checks."""
    disk = GuestDisk(appliance, parse(appliance.read_disk, disk_size))
    with console.step("Checking filesystems"):
        disk.filesystems = filesystems(appliance)
        for filesystem in disk.filesystems:
            console.activity(filesystem.device)
            _fsck(appliance, filesystem)
            _look(disk, filesystem)
    if len(disk.roots) == 1:
        _open_root(disk, disk.roots[0])
    return disk


def filesystems(appliance: Appliance) -> list[Filesystem]:
    """List what lies on partitions and logical volumes, or on the disk itself when it has neither."""
    devices = list(appliance.call("list_partitions")) or [appliance.device]
    found = [Filesystem(device, _blkid(appliance, device)) for device in devices]
    if any(filesystem.type == "LVM2_member" for filesystem in found):
        found += [Filesystem(device, _blkid(appliance, device)) for device in appliance.call("lvs")]
    return found


def _blkid(appliance: Appliance, device: str) -> dict[str, str]:
    try:
        return dict(appliance.call("blkid", device))
    except TreeError:
        return {}  # blkid(8) fails where it recognises nothing


def _fsck(appliance: Appliance, filesystem: Filesystem) -> None:
    """Run the filesystem's own checker, which must not change anything."""
    if filesystem.type not in _CHECKERS:
        return
    command, clean = _CHECKERS[filesystem.type]
    try:
        status, filesystem.report = appliance.shell(command, appliance.own_name(filesystem.device))
    except TreeError as error:
        filesystem.report = str(error)
        return
    newer = "unsupported feature" in filesystem.report or "unsupported version" in filesystem.report
    if status != 127 and not newer:  # 127: the appliance has no such program
        filesystem.clean = status in clean


def _look(disk: GuestDisk, filesystem: Filesystem) -> None:
    """Mount a filesystem, see what it is for, and unmount it."""
    if not filesystem.mountable:
        return
    for mountable in mountables(disk.appliance, filesystem):
        try:
            disk.appliance.call("mount_options", MOUNT_OPTIONS, mountable, "/")
        except TreeError as error:
            if mountable == filesystem.device:
                filesystem.mount_error = str(error)
            continue
        try:
            tree = ApplianceTree(disk.appliance)
            if is_root(tree):
                disk.roots.append(mountable)
                disk.root = filesystem
            elif _is_esp(disk, filesystem):
                _read_esp(disk, tree)
        except TreeError as error:
            filesystem.mount_error = f"it mounts, but cannot be read: {error}"
        finally:
            disk.appliance.call("umount_all")
        if disk.root is filesystem:
            return  # a default subvolume with a system; the others belong to it, or are snapshots


def mountables(appliance: Appliance, filesystem: Filesystem) -> list[str]:
    """Give the device, and the subvolumes of btrfs (Fedora's root is in one)."""
    if filesystem.type != "btrfs":
        return [filesystem.device]
    try:
        subvolumes = appliance.call("btrfs_subvolume_list", filesystem.device)
    except TreeError:
        subvolumes = []
    paths = [f"btrfsvol:{filesystem.device}/{s['btrfssubvolume_path']}" for s in subvolumes[:_SUBVOLUME_LIMIT]]
    return [filesystem.device, *paths]


def _is_esp(disk: GuestDisk, filesystem: Filesystem) -> bool:
    esp = disk.table.esp
    return filesystem.type == "vfat" and esp is not None and filesystem.device == f"/dev/sda{esp.number}"


def _read_esp(disk: GuestDisk, tree: ApplianceTree) -> None:
    for path, entry in tree.walk("/"):
        if entry.is_file:
            disk.esp_files.append(path.lower())  # FAT has no case
            if path.lower().endswith("/grub.cfg") and entry.size <= _ESP_FILE_LIMIT:
                disk.esp_configs[path] = tree.text(path)


# --- the guest's own filesystems, as its fstab mounts them -----------------------------------------------------------


def _open_root(disk: GuestDisk, mountable: str) -> None:
    appliance = disk.appliance
    appliance.call("mount_options", MOUNT_OPTIONS, mountable, "/")
    assert disk.root is not None
    disk.root.mountpoint = "/"
    _mount_others(disk)
    space = appliance.call("statvfs", "/")
    disk.free, disk.size = space["bavail"] * space["frsize"], space["blocks"] * space["frsize"]
    disk.tree = ApplianceTree(appliance)


def _mount_others(disk: GuestDisk) -> None:
    tree = ApplianceTree(disk.appliance)
    entries = [e for e in fstab.parse_fstab(tree.text("/etc/fstab")) if e.mountpoint.startswith("/")]
    disk.unmounted = []
    for entry in sorted(entries, key=lambda e: posixpath.normpath(e.mountpoint).count("/")):
        filesystem = next((f for f in disk.filesystems if fstab.names(entry.spec, f.facts, f.device)), None)
        if entry.mountpoint == "/" or not entry.spec.startswith(("/dev/", "UUID", "LABEL", "PART")):
            continue
        if filesystem is None:
            # Nobody waits for those (systemd.mount(5)).
            if not {"noauto", "nofail"}.intersection(entry.options):
                disk.unmounted.append(f"{entry.spec} on {entry.mountpoint}")
            continue
        mountable = filesystem.device
        for option in entry.options:
            if option.startswith("subvol=") and filesystem.type == "btrfs":
                mountable = f"btrfsvol:{filesystem.device}/{option[7:].lstrip('/')}"
        real = ApplianceTree(disk.appliance).resolve(entry.mountpoint)
        try:
            if real is None or not real[1].is_directory:
                raise TreeError("there is no such directory")
            disk.appliance.call("mount_options", MOUNT_OPTIONS, mountable, real[0])
            if filesystem is not disk.root:
                filesystem.mountpoint = real[0]
        except TreeError as error:
            filesystem.mount_error = filesystem.mount_error or f"not on {entry.mountpoint}: {error}"
