"""Find the one operating system on a disk in the appliance, and mount all that belongs to it, as its fstab does.

Everything is mounted read-only, and the disk is a copy-on-write view at that. Only what makes a system is looked for:
a boot partition, a rescue system in an EFI system partition or a disk of data is none.
"""

from __future__ import annotations

import contextlib
import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.unpack.tar_format import printable
from amphora_mkimage.verify.appliance import Appliance, ApplianceTree
from amphora_mkimage.verify.fstab import FstabEntry, names, parse_fstab
from amphora_mkimage.verify.guest_disk import MOUNT_OPTIONS, Filesystem, filesystems, mountables
from amphora_mkimage.verify.tree import Tree, TreeError

_ANOTHER = "use an image with one installed operating system"
_TAGS = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")


@dataclass(frozen=True)
class System:
    """An operating system on a disk.

    :param name: as os-release(5) calls it
    :param mountable: its root: a device, or a subvolume of btrfs
    :param fstab: its entries
    """

    name: str
    mountable: str
    fstab: Sequence[FstabEntry]


def mount(appliance: Appliance) -> tuple[System, list[str]]:
    """Find the system and mount it; give it, and the directories that something is mounted on.

    :raises MkimageError: there is none or more than one, or a part of it is not on the disk
    """
    found = filesystems(appliance)
    system = _only_system(appliance, found)
    appliance.call("mount_options", MOUNT_OPTIONS, system.mountable, "/")
    return system, ["/", *(_mount_entry(appliance, entry, found) for entry in _entries(system, found))]


# --- the system ------------------------------------------------------------------------------------------------------


def _only_system(appliance: Appliance, found: Sequence[Filesystem]) -> System:
    systems = [system for filesystem in found if filesystem.mountable for system in _systems(appliance, filesystem)]
    if len(systems) == 1:
        return systems[0]
    if systems:
        places = printable(", ".join(f"{system.name} on {system.mountable}" for system in systems))
        raise MkimageError(f"there are {len(systems)} operating systems on the disk: {places}", _ANOTHER)
    seen = ", ".join(f"{filesystem.device}: {filesystem.type or 'nothing known'}" for filesystem in found)
    errors = [f"{filesystem.device}: {filesystem.mount_error}" for filesystem in found if filesystem.mount_error]
    raise MkimageError(f"there is no operating system on the disk ({seen})", _ANOTHER, tail=errors)


def _systems(appliance: Appliance, filesystem: Filesystem) -> list[System]:
    """Find the systems on a filesystem: one, but for btrfs, which has any number of trees."""
    systems = []
    for mountable in mountables(appliance, filesystem):
        try:
            system = _look(appliance, mountable)
        except TreeError as error:
            filesystem.mount_error = filesystem.mount_error or str(error)
            continue
        if system is not None and mountable == filesystem.device:
            return [system]  # in the default subvolume; others are its snapshots
        if system is not None:
            systems.append(system)
    # A snapshot has the fstab of what it is of, which names another subvolume than the snapshot's.
    current = [s for s in systems if s.mountable in {_mountable(e, filesystem) for e in s.fstab if e.mountpoint == "/"}]
    return current if len(current) == 1 else systems


def _look(appliance: Appliance, mountable: str) -> System | None:
    appliance.call("mount_options", MOUNT_OPTIONS, mountable, "/")
    try:
        tree = ApplianceTree(appliance)
        # What they are is not asked: os-release may be a link to a filesystem of its own (/usr).
        named = any(tree.entry(path, follow=False) for path in ("/etc/os-release", "/usr/lib/os-release"))
        if not named or not all(tree.is_directory(path) for path in ("/etc", "/usr")):
            return None
        return System(_name(tree), mountable, parse_fstab(tree.text("/etc/fstab")))
    finally:
        appliance.call("umount_all")


def _name(tree: Tree) -> str:
    """Read the system's name (os-release(5)); it is shown and written down, so only what is printable."""
    text = tree.text("/etc/os-release") or tree.text("/usr/lib/os-release")
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        with contextlib.suppress(ValueError, IndexError):  # quotes that do not match, no value
            values[key] = shlex.split(value)[0] if equals else ""
    name = values.get("PRETTY_NAME") or values.get("ID") or "an unnamed system"
    return printable(name)[:100]


# --- its other filesystems -------------------------------------------------------------------------------------------


def _entries(system: System, found: Sequence[Filesystem]) -> list[FstabEntry]:
    """Give the entries to mount, outer directories first.

    :raises MkimageError: the system needs one that is not there
    """
    wanted = []
    for entry in system.fstab:
        mountpoint = posixpath.normpath(entry.mountpoint)
        if not entry.mountpoint.startswith("/") or mountpoint.strip("/") == "" or entry.type == "swap":
            continue
        if not entry.spec.replace('"', "").startswith(_TAGS) or "noauto" in entry.options:
            continue
        if any(names(entry.spec, filesystem.facts, filesystem.device) for filesystem in found):
            wanted.append(entry)
        elif "nofail" not in entry.options:
            raise MkimageError(
                printable(f"{system.name} mounts {entry.spec} on {entry.mountpoint}, which is not on this disk"),
                "use an image that is complete, or take the line out of its /etc/fstab",
            )
    return sorted(wanted, key=lambda entry: posixpath.normpath(entry.mountpoint).count("/"))


def _mount_entry(appliance: Appliance, entry: FstabEntry, found: Sequence[Filesystem]) -> str:
    filesystem = next(f for f in found if names(entry.spec, f.facts, f.device))
    # Anew each time: what is mounted changes what there is.
    place = ApplianceTree(appliance).resolve(entry.mountpoint)
    if place is None or not place[1].is_directory:
        raise MkimageError(
            f"the image mounts {entry.spec} on {entry.mountpoint}, which is not a directory there", _ANOTHER
        )
    appliance.call("mount_options", MOUNT_OPTIONS, _mountable(entry, filesystem), place[0])
    return place[0]


def _mountable(entry: FstabEntry, filesystem: Filesystem) -> str:
    """Give what an entry mounts, as libguestfs names it (guestfs(3), "MOUNTABLES")."""
    if filesystem.type == "btrfs":
        for option in entry.options:
            if option.startswith("subvol="):
                return f"btrfsvol:{filesystem.device}/{option.removeprefix('subvol=').strip('/')}"
    return filesystem.device
