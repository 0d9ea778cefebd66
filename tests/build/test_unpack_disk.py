"""Real disks in the layouts that cloud images have, read through a real appliance.

Each launch costs a quarter of a minute under emulation, so each disk has as many things as go together.
"""

from __future__ import annotations

import importlib.util
import io
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from hostile_tar import END, Facts, file, header, pax, unpacked
from verify_images import PATH, TWO_SYSTEMS, make_esp, make_ext4, partition, tool
from verify_tree import TreeBuilder

from amphora_mkimage import accelerator, unpack
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.verify.watchdog import _own_qemus

_NEEDED = ("qemu-img", "mke2fs", "sfdisk", "mkfs.vfat", "mkfs.xfs", "mcopy")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("guestfs") is None or any(shutil.which(name, path=PATH) is None for name in _NEEDED),
    reason=f"needs python3-guestfs and {', '.join(_NEEDED)}",
)
ROOT, BOOT = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-666666666666"
GPT = """\
label: gpt
size=33MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
size=100MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
"""
CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)  # cap_net_raw=ep


def system(name: str, fstab: str) -> TreeBuilder:
    """As little as a system may be."""
    tree = TreeBuilder()
    tree.write("/usr/lib/os-release", f'ID=x\nPRETTY_NAME="{name}"\n')
    tree.link("/etc/os-release", "../usr/lib/os-release")
    tree.write("/etc/fstab", fstab)
    tree.write("/usr/bin/su", "su", 0o4755)
    for directory in ("/boot", "/home", "/var", "/dev", "/proc", "/sys"):
        tree.mkdir(directory)
    tree.write("/dev/left-out", "x")
    tree.write("/proc/left-out", "x")
    return tree


def disk(path: Path, target: Path, stream: io.StringIO | None = None) -> str:
    return unpack.disk(path, unpack.kind(path), target, unpack.Limits(), Console(stream or io.StringIO()))


def tree_of(path: Path, scratch: Path) -> tuple[str, Facts]:
    """Everything that the tree has, by way of the tar."""
    name = disk(path, scratch / "out.tar")
    return name, unpacked(scratch / "out.tar")


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 with ESP, /boot and root, as of Ubuntu."""
    place = tmp_path_factory.mktemp("gpt")
    raw, image = place / "disk.raw", place / "disk.qcow2"
    esp, boot, root = partition(raw, GPT, 600 << 20)
    make_esp({"EFI/BOOT/BOOTX64.EFI": "MZ"}, raw, esp, place)
    files = TreeBuilder()
    files.write("/vmlinuz", "kernel")
    files.mkdir("/efi")
    make_ext4(files, raw, boot, place, uuid=BOOT)
    tree = system("G\x1bPT 24.04", f"UUID={ROOT} / ext4 defaults\nLABEL=UEFI /boot/efi vfat umask=0077\n")
    tree.append(
        "/etc/fstab", f"UUID={BOOT} /boot ext4\nLABEL=other /srv ext4 nofail\ntmpfs /tmp tmpfs\n/swap none swap\n"
    )
    tree.write("/var/data", random.Random(1).randbytes(80 << 20))
    make_ext4(tree, raw, root, place, uuid=ROOT)
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    raw.unlink()
    return image


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two disks that only a kernel can make: xfs in LVM without partitions, and btrfs with subvolumes."""
    guestfs = pytest.importorskip("guestfs")
    place = tmp_path_factory.mktemp("made")
    lvm, btrfs = place / "lvm.raw", place / "btrfs.raw"
    handle = guestfs.GuestFS(python_return_dict=True)
    request.addfinalizer(handle.close)
    variables = accelerator.prepare_libguestfs(accelerator.choose(Console(io.StringIO())))
    handle.parse_environment_list([f"{name}={value}" for name, value in variables.items()])
    partition(btrfs, "label: gpt\ntype=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n", 400 << 20)
    with lvm.open("wb") as raw:
        raw.truncate(500 << 20)
    # The appliance of Debian mounts xfs, but has no mkfs.xfs (that is in libguestfs-xfs): it is made here.
    xfs = place / "xfs.raw"
    with xfs.open("wb") as raw:
        raw.truncate(320 << 20)
    tool("mkfs.xfs", "-q", xfs)
    for path in (lvm, btrfs, xfs):
        handle.add_drive_opts(str(path), format="raw")
    handle.launch()
    handle.pvcreate("/dev/sda")
    handle.vgcreate("my-group", ["/dev/sda"])
    handle.lvcreate("root", "my-group", 320)
    handle.lvcreate_free("var", "my-group", 100)
    handle.copy_device_to_device("/dev/sdc", "/dev/my-group/root", sparse=True)
    handle.mkfs("ext4", "/dev/my-group/var")
    fstab = "/dev/mapper/my--group-root / xfs\n/dev/my-group/var /var ext4\n"
    handle.mount("/dev/my-group/root", "/")
    handle.tar_in(str(system("LVM", fstab).tar(place / "x.tar")), "/")
    handle.umount_all()
    handle.mount("/dev/my-group/var", "/")
    handle.write("/on-var", b"v")
    handle.umount_all()
    _make_btrfs(handle, place)
    handle.shutdown()
    return lvm, btrfs


def _make_btrfs(handle: object, place: Path) -> None:
    call = lambda name, *arguments, **options: getattr(handle, name)(*arguments, **options)  # noqa: E731
    call("mkfs_btrfs", ["/dev/sdb1"])
    call("set_uuid", "/dev/sdb1", ROOT)
    call("mount", "/dev/sdb1", "/")
    for name in ("root", "home"):
        call("btrfs_subvolume_create", f"/{name}")
    fstab = f"UUID={ROOT} / btrfs compress=zstd:1,subvol=root\nUUID={ROOT} /home btrfs subvol=/home\n"
    call("tar_in", str(system("Fedora", fstab).tar(place / "x.tar")), "/root")
    ping = header(b"usr", b"5", mode=0o755) + pax((b"SCHILY.xattr.security.capability", CAPABILITY))
    ping += file(b"usr/ping", b"ping", mode=0o755, uid=101, gid=65534)
    (place / "x.tar").write_bytes(ping + header(b"usr/ping2", b"1", link=b"usr/ping") + END)
    call("tar_in", str(place / "x.tar"), "/root", xattrs=True)
    call("mkdir", "/home/user")
    call("btrfs_subvolume_snapshot", "/root", "/before-update")


def test_partitions_with_boot_and_esp(gpt: Path, tmp_path: Path) -> None:
    name, found = tree_of(gpt, tmp_path)
    assert name == "GPT 24.04"
    assert {"boot/vmlinuz", "boot/efi/EFI/BOOT/BOOTX64.EFI", "etc/fstab", "proc", "sys", "dev", "var/data"} <= set(
        found
    )
    assert not [path for path in found if "left-out" in path or "lost+found" in path]
    assert found["usr/bin/su"][0] == "-rwsr-xr-x"
    assert found["etc/os-release"][5] == b"../usr/lib/os-release"


def test_xfs_in_lvm(made: tuple[Path, Path], tmp_path: Path) -> None:
    name, found = tree_of(made[0], tmp_path)
    assert name == "LVM"
    assert {"var/on-var", "etc/fstab", "usr/bin/su"} <= set(found)


def test_btrfs_with_subvolumes_and_a_snapshot(made: tuple[Path, Path], tmp_path: Path) -> None:
    before = made[1].read_bytes()
    name, found = tree_of(made[1], tmp_path)
    assert name == "Fedora"
    assert {"home/user", "usr/bin/su"} <= set(found)
    assert not [path for path in found if path.startswith(("root/", "before-update"))]
    assert found["usr/ping"][:3] == ("-rwxr-xr-x", 101, 65534)
    assert found["usr/ping"][6] == {"security.capability": CAPABILITY}
    assert found["usr/ping2"][4] == "usr/ping"
    assert made[1].read_bytes() == before


# --- no system, or not one -------------------------------------------------------------------------------------------


def test_what_is_no_system_does_not_count(tmp_path: Path) -> None:
    """A boot partition, and a disk of data that holds somebody's /etc."""
    image = tmp_path / "disk.raw"
    one, other = partition(image, TWO_SYSTEMS, 800 << 20)
    boot, data = TreeBuilder(), TreeBuilder()
    boot.write("/vmlinuz", "kernel")
    boot.write("/grub/grub.cfg", "rescue")
    data.write("/etc/fstab", "LABEL=x / ext4\n")
    make_ext4(boot, image, one, tmp_path, uuid=BOOT)
    make_ext4(data, image, other, tmp_path)
    with pytest.raises(MkimageError, match=r"no operating system on the disk .*sda1: ext4, /dev/sda2: ext4"):
        disk(image, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_two_systems(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    for number, place in enumerate(partition(image, TWO_SYSTEMS, 800 << 20)):
        make_ext4(system(f"System {number}", ""), image, place, tmp_path, uuid=(ROOT, BOOT)[number])
    with pytest.raises(MkimageError, match="2 operating systems on the disk: System 0 on /dev/sda1, System 1 on"):
        disk(image, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-b", "/etc/hostname", "-F", "raw"], "overlay over another file, '/etc/hostname'"),
        (["-o", "data_file={}/data"], "data lies in another file"),
        (["300G"], "300 GiB, more than"),
    ],
)
def test_images_that_qemu_never_sees(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "x.qcow2"
    options = [option.format(tmp_path) for option in options]
    size = [] if "300G" in options else ["10M"]
    tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", image, *size, *options)
    monkeypatch.setenv("PATH", str(tmp_path))  # no qemu-img, no qemu
    with pytest.raises(MkimageError, match=words):
        disk(image, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_a_qcow2_of_the_first_version(tmp_path: Path) -> None:
    image = tmp_path / "x.qcow2"
    image.write_bytes(b"QFI\xfb\0\0\0\x01".ljust(1024, b"\0"))
    with pytest.raises(MkimageError, match="qcow2 of version 1"):
        disk(image, tmp_path / "out.tar")


# --- faults ----------------------------------------------------------------------------------------------------------


class Killer(io.StringIO):
    """A stream for progress that kills qemu when the copy begins."""

    def write(self, text: str) -> int:
        if "Copying" in text:
            for pid in _own_qemus():
                os.kill(pid, signal.SIGKILL)
        return super().write(text)


def test_a_killed_appliance(gpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(MkimageError, match="the appliance ended unexpectedly"):
        disk(gpt, tmp_path / "out.tar", Killer())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="libguestfs' cache belongs to root where the namespace's root is another")
def test_a_host_without_space(gpt: Path) -> None:
    """Inside a build's namespace, as -w would have it; the image has more than fits."""

    def work() -> None:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs", 0, "size=70m")
        try:
            disk(gpt, Path("/mnt/out.tar"))
        finally:
            assert list(Path("/mnt").iterdir()) == []

    with pytest.raises(MkimageError, match="the disk is full") as caught:
        userns.run(work)
    assert "free some space" in caught.value.remedy


def test_an_image_with_more_than_the_limit(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MkimageError, match=r"has more than 0.0 GiB of files"):
        unpack.disk(made[0], unpack.Kind.RAW, tmp_path / "out.tar", unpack.Limits(total=8192), Console(io.StringIO()))
    assert not (tmp_path / "out.tar").exists()


def test_nothing_of_all_this_is_left() -> None:
    listing = subprocess.check_output(["ps", "-o", "comm=", "--ppid", str(os.getpid())], text=True)
    assert "qemu" not in listing
