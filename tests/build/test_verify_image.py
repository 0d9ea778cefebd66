"""verify on real disks: a complete one, spoilt ones, and one as another tool would lay it out.

Each disk costs a launch of libguestfs (a quarter of a minute under emulation), so each has many defects.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from verify_images import (
    ESP_FILES,
    MIB,
    PATH,
    TWO_SYSTEMS,
    debugfs,
    embed_grub,
    make_ext4,
    make_image,
    partition,
    tool,
    write,
)
from verify_rpm import rpm_database
from verify_tree import KERNEL, TreeBuilder, amphora, bzimage, initramfs

from amphora_mkimage import accelerator
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.verify import command
from amphora_mkimage.verify.appliance import Appliance
from amphora_mkimage.verify.report import Report
from amphora_mkimage.verify.result import Outcome, Result
from amphora_mkimage.verify.watchdog import Watchdog

_NEEDED = ("qemu-img", "mke2fs", "debugfs", "sfdisk", "mkfs.vfat", "mcopy")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("guestfs") is None or any(shutil.which(name, path=PATH) is None for name in _NEEDED),
    reason=f"needs python3-guestfs and {', '.join(_NEEDED)}",
)


def verify(path: Path) -> Report:
    return command.verify(path, Console(io.StringIO()))


def outcomes(report: Report) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in report.outcomes}


def details(outcome: Outcome) -> list[str]:
    return [finding.detail for finding in outcome.findings if finding.result in (Result.FAIL, Result.WARN)]


def qemus() -> list[str]:
    listing = subprocess.check_output(["ps", "-o", "comm=", "--ppid", str(os.getpid())], text=True)
    return [line for line in listing.splitlines() if "qemu" in line]


# --- complete --------------------------------------------------------------------------------------------------------


def test_a_complete_image(tmp_path: Path) -> None:
    disk, image = tmp_path / "disk.raw", tmp_path / "image.qcow2"
    make_image(amphora(), disk, tmp_path)
    tool("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, image)
    before = image.read_bytes()
    argv = [sys.executable, "-m", "amphora_mkimage", "verify", "--json", "--size", "1", str(image)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert [c for c in document["checks"] if c["result"] in ("fail", "warn", "info")] == []
    assert done.returncode == 0
    assert document["summary"]["complete"] is True
    # Whatever applies to a disk was looked at.
    skipped = {c["id"] for c in document["checks"] if c["result"] == "not-applicable"}
    assert skipped == {
        "image.manifest", "archive.entries", "packages.manifest", "configuration.selinux", "agent.source",
    }  # fmt: skip
    assert image.read_bytes() == before


# --- spoilt ----------------------------------------------------------------------------------------------------------


def spoilt_tree() -> TreeBuilder:
    tree = amphora()
    other = "22222222-2222-3333-4444-555555555555"
    second = "6.99.0-other"
    tree.replace("/boot/grub/grub.cfg", "LABEL=cloudimg-rootfs", "LABEL=elsewhere")
    tree.append(
        "/boot/grub/grub.cfg",
        f"menuentry 'b' {{\n search --fs-uuid --set=root {other}\n linux /boot/vmlinuz-{second} root=/dev/vda3\n"
        f" initrd /boot/initrd.img-{second}\n}}\n"
        "menuentry 'c' {\n linux /boot/vmlinuz-gone root=LABEL=cloudimg-rootfs\n initrd /boot/initrd.img-gone\n}\n",
    )
    tree.write(f"/boot/vmlinuz-{second}", "#!/bin/sh\n")
    tree.write(f"/boot/initrd.img-{second}", initramfs(KERNEL))
    tree.write(f"/boot/vmlinuz-{KERNEL}", bzimage(KERNEL))
    tree.write(f"/boot/initrd.img-{KERNEL}", "nothing like it")
    tree.replace(f"/usr/lib/modules/{KERNEL}/modules.dep", "brd.ko", "other.ko")
    tree.write("/etc/fstab", f"UUID={other} / xfs defaults 0 1\nLABEL=data /data ext4 defaults 0 2\n")
    tree.link("/etc/systemd/system/multi-user.target.wants/haproxy.service", "/lib/systemd/system/haproxy.service")
    tree.write(os.fsdecode(b"/opt/not-utf8-\xff"), "")
    return tree


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    place = tmp_path_factory.mktemp("spoilt")
    disk = place / "disk.raw"
    esp = {name: content for name, content in ESP_FILES.items() if "BOOTX64" not in name}
    _, esp_place, root = make_image(spoilt_tree(), disk, place, esp)
    debugfs(disk, root[0], "set_super_value free_blocks_count 7", "set_inode_field /root mode 0100755")
    sectors = int.from_bytes(disk.open("rb").read(esp_place[0] + 24)[-10:-8], "little")
    write(disk, esp_place[0] + sectors * 512 + 8, b"\x55\x55")  # the first FAT is not as the second any more
    write(disk, (disk.stat().st_size - 512), bytes(512))  # the backup GPT
    write(disk, 0x5C, (5 * MIB).to_bytes(8, "little"))
    tool("truncate", "--size", str((1 << 30) + 512 * 3), disk)
    return outcomes(verify(disk))


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("image.size", "not a whole number"),
        ("disk.partitions", "not at the end of the disk"),
        ("disk.filesystems", "ext4 on /dev/sda3"),
        ("disk.filesystems", "vfat on /dev/sda2"),
        ("boot.bios", "where nothing is"),
        ("boot.efi", "BOOTX64.EFI"),
        ("boot.search", "22222222-2222-3333-4444-555555555555"),
        ("boot.root", "root=LABEL=elsewhere is not the root"),
        ("boot.root", "root=/dev/vda3 holds on one kind of disk only"),
        ("boot.fstab", "UUID=22222222-2222-3333-4444-555555555555 on /"),
        ("boot.fstab", "LABEL=data on /data"),
        ("kernel.file", "/boot/vmlinuz-6.99.0-other is no Linux kernel"),
        ("kernel.file", "/boot/vmlinuz-gone does not exist"),
        ("kernel.initramfs", f"/boot/initrd.img-{KERNEL} is no initramfs"),
        ("kernel.initramfs", f"has modules for {KERNEL}, but the kernel is 6.99.0-other"),
        ("kernel.initramfs", "/boot/initrd.img-gone does not exist"),
        ("kernel.modules-directory", "/lib/modules/6.99.0-other does not exist"),
        ("kernel.modules", "no module brd"),
        ("services.haproxy", "enabled"),
    ],
)
def test_each_defect_of_a_spoilt_image(spoilt: dict[str, Outcome], identifier: str, words: str) -> None:
    assert any(words in detail for detail in details(spoilt[identifier])), details(spoilt[identifier])


def test_what_is_right_in_a_spoilt_image(spoilt: dict[str, Outcome]) -> None:
    for identifier in ("disk.system", "packages.required", "configuration.sysctl", "agent.commands"):
        assert spoilt[identifier].result is Result.PASS
    assert qemus() == []


# --- no system, two systems ------------------------------------------------------------------------------------------


def test_no_operating_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(1 << 30)
    tool("mke2fs", "-q", "-F", "-t", "ext4", disk)  # no partition table either
    write(disk, 510, b"\x55\xaa")  # what tells a disk from noise
    report = verify(disk)
    found = outcomes(report)
    assert details(found["disk.system"]) == ["there is no operating system on it"]
    assert found["disk.partitions"].result is Result.WARN
    assert found["packages.required"].result is Result.NOT_APPLICABLE
    assert not report.complete


def test_two_operating_systems(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    one, other = partition(disk, TWO_SYSTEMS, 1 << 30)
    make_ext4(amphora(), disk, one, tmp_path)
    make_ext4(amphora(), disk, other, tmp_path, uuid="22222222-2222-3333-4444-555555555555")
    found = outcomes(verify(disk))
    assert "2 operating systems on it: /dev/sda1, /dev/sda2" in details(found["disk.system"])[0]


# --- as another tool would -------------------------------------------------------------------------------------------

BOOT_UUID = "c1a2b3c4-0000-4000-8000-000000000001"
ROOT_UUID = "c1a2b3c4-0000-4000-8000-000000000002"
BLS = f"""\
title Fedora Linux
version {KERNEL}
linux /vmlinuz-{KERNEL}
initrd /initramfs-{KERNEL}.img $tuned_initrd
options root=UUID={ROOT_UUID} ro rootflags=subvol=root console=ttyS0
"""


def fedora_tree(rpmdb: bytes) -> TreeBuilder:
    """Without /boot, which is a filesystem of its own."""
    tree = amphora(agent=False)
    tree.remove("/boot")
    tree.remove("/var/lib/dpkg")
    tree.mkdir("/boot")
    tree.write("/usr/lib/os-release", 'ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora Linux 42"\n')
    tree.write("/etc/fstab", f"UUID={ROOT_UUID} / btrfs subvol=root 0 0\nUUID={BOOT_UUID} /boot ext4 defaults 0 2\n")
    tree.write("/usr/lib/sysimage/rpm/rpmdb.sqlite", rpmdb)
    return tree


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """MBR, no ESP, /boot apart, the root in a subvolume of a btrfs in LVM, BLS entries, RPM."""
    guestfs = pytest.importorskip("guestfs")
    place = tmp_path_factory.mktemp("foreign")
    disk = place / "disk.raw"
    boot, _ = partition(disk, "label: dos\nsize=100MiB, type=83, bootable\ntype=8e\n", 1 << 30)
    files = TreeBuilder()
    files.write(f"/vmlinuz-{KERNEL}", bzimage(KERNEL))
    files.write(f"/initramfs-{KERNEL}.img", initramfs(KERNEL))
    files.write(f"/loader/entries/0123-{KERNEL}.conf", BLS)
    files.write("/grub2/grub.cfg", f"search --no-floppy --fs-uuid --set=root {BOOT_UUID}\nblscfg\n")
    make_ext4(files, disk, boot, place, uuid=BOOT_UUID)
    embed_grub(disk, 1)
    packages = ["haproxy", "keepalived", "ipvsadm", "NetworkManager", "firewalld", "kernel-core"]
    tar = fedora_tree(rpm_database(packages, place / "rpmdb.sqlite")).tar(place / "root.tar")
    handle = guestfs.GuestFS(python_return_dict=True)
    variables = accelerator.prepare_libguestfs(accelerator.choose(Console(io.StringIO())))
    handle.parse_environment_list([f"{name}={value}" for name, value in variables.items()])
    handle.add_drive_opts(str(disk), format="raw")
    handle.launch()
    handle.pvcreate("/dev/sda2")
    handle.vgcreate("my-group", ["/dev/sda2"])
    handle.lvcreate_free("root", "my-group", 100)
    handle.mkfs_btrfs(["/dev/my-group/root"])
    handle.set_uuid("/dev/my-group/root", ROOT_UUID)
    handle.mount("/dev/my-group/root", "/")
    handle.btrfs_subvolume_create("/root")
    handle.btrfs_subvolume_create("/home")
    handle.tar_in(str(tar), "/root")
    handle.shutdown()
    handle.close()
    return outcomes(verify(disk))


def test_the_layout_of_another_tool_is_understood(foreign: dict[str, Outcome]) -> None:
    right = (
        "disk.partitions", "disk.filesystems", "disk.mounts", "disk.system", "boot.config", "boot.bios",
        "boot.search", "boot.root", "boot.fstab", "kernel.file", "kernel.initramfs", "kernel.modules-directory",
        "kernel.modules", "packages.distribution", "packages.database",
    )  # fmt: skip
    wrong = {name: foreign[name].findings for name in right if foreign[name].result is not Result.PASS}
    assert wrong == {}


@pytest.mark.parametrize(
    ("identifier", "result", "words"),
    [
        ("boot.efi", Result.WARN, "no EFI system partition"),
        ("packages.required", Result.FAIL, "cloud-init"),
        ("packages.unwanted", Result.FAIL, "firewalld"),
        ("agent.commands", Result.FAIL, "amphora-agent"),
    ],
)
def test_what_the_image_of_another_tool_lacks(
    foreign: dict[str, Outcome], identifier: str, result: Result, words: str
) -> None:
    assert foreign[identifier].result is result
    assert any(words in detail for detail in details(foreign[identifier]))


# --- the built image -------------------------------------------------------------------------------------------------


def test_a_spoilt_copy_of_a_built_image(built_image: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", built_image, disk)
    entries = json.loads(tool("sfdisk", "--json", disk))["partitiontable"]["partitions"]
    (tmp_path / "key").write_text("a key\n")
    debugfs(
        disk,
        entries[-1]["start"] * 512,
        "rm /etc/sysctl.d/net.core.somaxconn.conf",
        "rm /var/lib/octavia/ping-wrapper.sh",
        f"write {tmp_path}/key /etc/ssh/ssh_host_ed25519_key",
    )
    found = outcomes(verify(disk))
    failed = {
        name for name, outcome in found.items() if outcome.result is Result.FAIL and not name.startswith("agent.")
    }
    # The inode counts that debugfs leaves are right: only what was spoilt is found.
    assert failed == {"configuration.sysctl", "configuration.ping-wrapper", "leaks.identity"}


# --- the host --------------------------------------------------------------------------------------------------------


def test_a_launch_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_image(amphora(), disk, tmp_path)
    emulated = accelerator.Accelerator(False, "slow enough")
    with pytest.raises(HostError, match="did not start within"):
        Appliance(disk, "raw", emulated, Console(io.StringIO()), deadline=1.0)
    assert qemus() == []


def test_a_call_that_never_ends_is_stopped(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_image(amphora(), disk, tmp_path)
    chosen = accelerator.choose(Console(io.StringIO()))
    with Appliance(disk, "raw", chosen, Console(io.StringIO()), deadline=120.0) as appliance:
        session = appliance._session
        session._watchdog.stop()
        session._watchdog = Watchdog(1.0)
        session._watchdog.start()
        with pytest.raises(MkimageError, match="too long"):
            appliance.shell("sleep 100000")
    assert qemus() == []


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_image(amphora(), disk, tmp_path)
    environment = {**os.environ, "TMPDIR": str(tmp_path), accelerator.OVERRIDE: "tcg"}
    argv = [sys.executable, "-m", "amphora_mkimage", "verify", str(disk)]
    child = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert "Starting the appliance" in child.stderr.readline()
    time.sleep(1)  # into the launch, which Python's signal handlers wait for
    child.terminate()
    assert child.wait(timeout=60) == 130
    child.stderr.close()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in running if b"qemu" in line and str(tmp_path).encode() in line]


def test_without_libguestfs_the_host_cannot(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    make_image(amphora(), disk, tmp_path)
    # A directory with a guestfs that cannot be imported stands before the real one.
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow/guestfs.py").write_text("raise ImportError\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/shadow"}
    argv = [sys.executable, "-m", "amphora_mkimage", "verify", str(disk)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python3-guestfs" in done.stderr
    assert "Traceback" not in done.stderr
