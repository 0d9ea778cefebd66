"""Cloud images as Fedora, CentOS Stream and Rocky publish them: the partitions, filesystems and places of the real.

No root, loop device or mount is needed: the partition table is written to a file, and the filesystems are made and
filled in libguestfs' appliance, from a tar that is attached to it as a disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import guestfs
import redhat_tree
from redhat import Distribution
from rpm_repository import Repository, fingerprint, lab_directory, locked

from amphora_mkimage import accelerator, process
from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns

_BIOS = "21686148-6449-6E6F-744E-656564454649"
_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_XBOOTLDR = "BC13C2FF-59E6-4262-A352-B275FD6F7172"
_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
#: Subvolumes of Fedora's cloud image, and where they are mounted.
_SUBVOLUMES = {"root": "/", "home": "/home", "var": "/var"}


@dataclass(frozen=True)
class Plan:
    """How a distribution's disk is cut.

    :param size_gib: virtual size of the image
    :param esp: whether it starts under UEFI, too
    """

    distribution: Distribution
    size_gib: int
    esp: bool
    root: str = field(default_factory=lambda: str(uuid.uuid4()))
    boot: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def table(self) -> str:
        """Input for sfdisk(8)."""
        lines = ["label: gpt", f"size=2MiB, type={_BIOS}, name=bios"]
        lines += [f"size=100MiB, type={_ESP}, name=esp"] if self.esp else []
        lines += [f"size=1000MiB, type={_XBOOTLDR}, name=boot"] if self.distribution.boot_partition else []
        return "\n".join([*lines, f"type={_ROOT}, name=root", ""])

    @property
    def kernel_options(self) -> str:
        """Kernel command line of the BLS entry."""
        btrfs = "rootflags=subvol=root " if self.distribution.filesystem == "btrfs" else ""
        return f"root=UUID={self.root} ro {btrfs}{redhat_tree.KERNEL_OPTIONS}"

    def fstab(self, esp_uuid: str) -> str:
        """Give the content of /etc/fstab."""
        if self.distribution.filesystem == "btrfs":
            lines = [
                f"UUID={self.root} {place} btrfs compress=zstd:1,subvol={name} 0 0"
                for name, place in _SUBVOLUMES.items()
            ]
        else:
            lines = [f"UUID={self.root} / xfs defaults 0 0"]
        if self.distribution.boot_partition:
            lines.append(f"UUID={self.boot} /boot {self.boot_filesystem} defaults 0 0")
        if self.esp:
            lines.append(f"UUID={esp_uuid} /boot/efi vfat defaults,umask=0077,shortname=winnt 0 2")
        return "".join(f"{line}\n" for line in lines)

    @property
    def boot_filesystem(self) -> str:
        """Kind of /boot's filesystem."""
        return "ext4" if self.distribution.id == "fedora" else "xfs"


def image(repository: Repository, cache_dir: Path, console: Console) -> Path:
    """Give a distribution's cloud image, made now if it is not there."""
    distribution = repository.distribution
    source = hashlib.sha256((fingerprint() + _own_source()).encode()).hexdigest()[:16]
    target = lab_directory(cache_dir) / f"image-{source}" / Path(distribution.image).name
    with locked(cache_dir):
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="work-", dir=target.parent) as directory:
                made = _make(repository, Path(directory), console)
                made.rename(target)
    return target


def _own_source() -> str:
    here = Path(__file__)
    return "".join(path.read_text(encoding="utf-8") for path in (here, here.with_name("redhat_tree.py")))


def _make(repository: Repository, work: Path, console: Console) -> Path:
    distribution = repository.distribution
    # As published: Fedora and Rocky start under both firmwares, CentOS Stream 10 under the BIOS only.
    plan = Plan(distribution, 5 if distribution.id == "fedora" else 10, esp=distribution.id != "centos")
    content, disk = work / "content.tar", work / "disk.raw"
    with console.step(f"install {distribution.id}"):
        userns.run(lambda: _tar(repository, plan, work / "tree", content, console))
    with disk.open("wb") as file:
        file.truncate(plan.size_gib << 30)
    subprocess.run(["sfdisk", "--quiet", disk], input=plan.table, text=True, check=True)
    with console.step(f"fill the disk of {distribution.id}"):
        _fill(plan, disk, content, console)
    with console.step(f"compress the image of {distribution.id}"):
        target = work / "image.qcow2"
        argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
        process.run([*argv, os.fspath(disk), os.fspath(target)], console, what="cannot convert")
    return target


def _tar(repository: Repository, plan: Plan, root: Path, content: Path, console: Console) -> None:
    root.mkdir()
    redhat_tree.install(repository, root, console, plan.kernel_options)
    if plan.distribution.boot_partition:
        for entry in (root / "boot/loader/entries").iterdir():
            entry.write_text(entry.read_text(encoding="utf-8").replace(" /boot/", " /"), encoding="utf-8")
    (root / "boot/grub2/grub.cfg").write_text("insmod blscfg\nblscfg\n", encoding="utf-8")
    argv = ["tar", "--create", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--one-file-system"]
    process.run([*argv, "-f", os.fspath(content), "-C", os.fspath(root), "."], console, what="cannot pack")
    shutil.rmtree(root)


def _fill(plan: Plan, disk: Path, content: Path, console: Console) -> None:
    handle = guestfs.GuestFS(python_return_dict=True)
    settings = accelerator.prepare_libguestfs(accelerator.choose(console))
    handle.parse_environment_list([f"{name}={value}" for name, value in settings.items()])
    try:
        handle.add_drive_opts(os.fspath(disk), format="raw", cachemode="unsafe", label="disk")
        handle.add_drive_opts(os.fspath(content), format="raw", readonly=True, label="content")
        handle.launch()
        esp_uuid = _make_filesystems(plan, handle)
        command = "tar -xf /dev/disk/guestfs/content --numeric-owner --xattrs --xattrs-include='*' -C /sysroot"
        printed = handle.debug("sh", [f"{command} 2>&1; echo status $?"])
        if not printed.rstrip().endswith("status 0"):
            raise RuntimeError(f"tar failed in the appliance: {printed}")
        handle.write("/etc/fstab", plan.fstab(esp_uuid))
        handle.umount_all()
        handle.shutdown()
    finally:
        handle.close()


def _make_filesystems(plan: Plan, handle: guestfs.GuestFS) -> str:
    """Make and mount them, in the order of the partition table; gives the UUID of the ESP, or ""."""
    partitions = iter(handle.list_partitions())
    next(partitions)  # the BIOS boot partition holds no filesystem
    esp = next(partitions) if plan.esp else None
    boot = next(partitions) if plan.distribution.boot_partition else None
    root = next(partitions)
    kind = plan.distribution.filesystem
    handle.mkfs(kind, root, label="fedora" if kind == "btrfs" else "root")
    handle.set_uuid(root, plan.root)
    handle.mount(root, "/")
    if kind == "btrfs":
        for name in _SUBVOLUMES:
            handle.btrfs_subvolume_create(f"/{name}")
        handle.umount("/")
        handle.mount_options("subvol=root", root, "/")
        for name in ("home", "var"):
            handle.mkdir(f"/{name}")
            handle.mount_options(f"subvol={name}", root, f"/{name}")
    if boot:
        handle.mkfs(plan.boot_filesystem, boot, label="BOOT")
        handle.set_uuid(boot, plan.boot)
        handle.mkdir_p("/boot")
        handle.mount(boot, "/boot")
    if esp is None:
        return ""
    handle.mkfs("vfat", esp, label="EFI")
    handle.mkdir_p("/boot/efi")
    handle.mount(esp, "/boot/efi")
    return str(handle.vfs_uuid(esp))
