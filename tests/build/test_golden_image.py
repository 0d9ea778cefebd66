"""``DIB_LOCAL_IMAGE`` with all that hardening roles, installers and packer leave behind: built, and a complete amphora.

GRUB's package wants to install itself to a disk there (Debian's cloud images have /etc/grub.d/enable_cloud), and apt's
own settings and hooks would end every run.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from golden_image import FILES, File

from amphora_mkimage.verify import kernel_file

STATUS = "./var/lib/dpkg/status"


def _with_files(source: Path, target: Path, files: Iterable[File]) -> Path:
    """Copy the tar of an amphora with some files in place of its own."""
    new = {f".{file.path}": file for file in files}
    with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in old:
            if member.name not in new:
                archive.addfile(member, old.extractfile(member) if member.isreg() else None)
        for name, file in new.items():
            content = file.text.encode()
            member = tarfile.TarInfo(name)
            member.mode, member.size = file.mode, len(content)
            if file.link:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, file.link, 0
            archive.addfile(member, io.BytesIO(content))
    return target


def _text(path: Path, name: str) -> str:
    with tarfile.open(path) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read().decode()


@pytest.fixture(scope="module")
def golden(built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of an amphora with the files of golden_image.toml, and a trigger of GRUB's that is due."""
    status = _text(built.tar, STATUS)
    due = "Package: grub-cloud-amd64\nStatus: install ok installed\n"
    assert due in status
    pending = due.replace("ok installed\n", "ok triggers-pending\nTriggers-Pending: /usr/lib/shim\n")
    own = (File(STATUS[1:], status.replace(due, pending)), File("/etc/grub.d/enable_cloud"))
    return _with_files(built.tar, tmp_path_factory.mktemp("golden") / "golden.tar", (*FILES, *own))


@pytest.fixture(scope="module")
def made(golden: Path, run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    place = tmp_path_factory.mktemp("made")
    done = run_cli(
        *("-i", "debian", "--no-agent", "-t", "qcow2,tar", "-o", place / "a", "-w", place, "-c", cache_dir),
        *("-l", place / "log"),
        env={"DIB_LOCAL_IMAGE": str(golden)},
    )
    assert done.returncode == 0, done.stderr
    return place / "a.qcow2", done.stderr


def test_each_file_has_a_note(made: tuple[Path, str]) -> None:
    for file in FILES:
        lines = [line for line in made[1].splitlines() if "DIB_LOCAL_IMAGE: " in line and f" {file.path}:" in line]
        assert any(file.note in line for line in lines) if file.note else not lines, (file.path, lines)


def test_apt_has_no_complaint(made: tuple[Path, str]) -> None:
    """What it warned of stood at the end of every failure, and looked like its cause."""
    log = (made[0].parent / "log").read_text()
    assert "apt-get" in log
    assert "Read-only file system" not in log


def test_the_image_is_a_complete_amphora(made: tuple[Path, str], run_cli) -> None:
    """Under BIOS and UEFI; no package is half-configured, and no password is asked for."""
    done = run_cli("verify", "--json", made[0])
    report = json.loads(done.stdout)
    wrong = [check for check in report["checks"] if check["result"] in ("fail", "warn")]
    assert (done.returncode, wrong) == (0, [])
    results = {check["id"]: check["result"] for check in report["checks"]}
    named = ("boot.bios", "boot.efi", "boot.password", "boot.other-disks", "packages.state", "kernel.initramfs")
    assert {results[name] for name in named} == {"pass"}


def test_what_stays_and_what_goes(made: tuple[Path, str]) -> None:
    with tarfile.open(made[0].with_suffix(".tar")) as archive:
        names = set(archive.getnames())
        for file in FILES:
            if file.left is not None:
                content = archive.extractfile(f".{file.path}")
                assert content is not None
                assert content.read().decode() == file.left, file.path
            elif file.note and not file.path.startswith("/etc/systemd/system/default"):
                assert f".{file.path}" not in names, file.path
        assert not any("amphora-mkimage" in name for name in names)


def test_the_initramfs_waits_for_no_disk(made: tuple[Path, str]) -> None:
    """It is made of what was there when packages were installed, so the files had to be gone before."""
    with tarfile.open(made[0].with_suffix(".tar")) as archive:
        (name,) = (name for name in archive.getnames() if name.startswith("./boot/initrd.img-"))
        file = archive.extractfile(name)
        assert file is not None
        content = file.read()
    segments = kernel_file.segments(lambda offset, size: content[offset : offset + size], len(content))
    offset, kind = list(segments)[-1]
    assert kind == "zstd"
    unpacked = subprocess.run(["zstd", "-dc"], input=content[offset:], capture_output=True, check=True).stdout
    # A cpio archive has names and contents as they are.
    assert b"RESUME=UUID" not in unpacked
    assert b"install brd /bin/false" not in unpacked
    assert b"virtio_scsi.ko" in unpacked, "MODULES=dep"


@pytest.mark.slow
def test_it_starts(made: tuple[Path, str], run_cli) -> None:
    """Nothing waits for a password or a disk; without an agent ``boot`` looks whether the system is up."""
    done = run_cli("boot", "--json", made[0], timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_only_its_owner_can_mend_is_refused(built, run_cli, cache_dir: Path, tmp_path: Path) -> None:
    configuration = File("/etc/cloud/cloud.cfg", "cloud_init_modules: [ ssh ]\nusers: [ default ]\n")
    path = _with_files(built.tar, tmp_path / "golden.tar", [configuration])
    done = run_cli(
        *("-i", "debian", "--no-agent", "-t", "tar", "-o", tmp_path / "a", "-w", tmp_path, "-c", cache_dir),
        env={"DIB_LOCAL_IMAGE": str(path)},
    )
    assert done.returncode == 3
    assert "DIB_LOCAL_IMAGE: /etc/cloud/cloud.cfg: " in done.stderr
    assert "write-files" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["golden.tar"]
