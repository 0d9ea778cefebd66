"""The choice between KVM and emulation; real qemu, real kernel, where the host has them."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from amphora_mkimage import accelerator, verdicts
from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError

MACHINE = accelerator._MACHINES.get(platform.machine())
KERNEL = accelerator._readable_kernel()
needs_qemu = pytest.mark.skipif(
    MACHINE is None or KERNEL is None or shutil.which(MACHINE.qemu) is None,
    reason="needs qemu for this architecture and a readable kernel in /boot",
)
needs_kvm_device = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm to open")


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accelerator.OVERRIDE, raising=False)
    monkeypatch.delenv("LIBGUESTFS_BACKEND_SETTINGS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a verdict of real use lies in the usual one


def qemus() -> list[str]:
    """The qemu processes that are ours, zombies included."""
    listing = subprocess.check_output(["ps", "-o", "comm=", "--ppid", str(os.getpid())], text=True)
    return [line for line in listing.splitlines() if "qemu" in line or "setpriv" in line]


@needs_qemu
def test_a_kernel_that_comes_up_is_recognised(console: Console) -> None:
    # The same trial under emulation, which always works: so its failures under KVM are KVM's.
    assert MACHINE is not None
    assert KERNEL is not None
    assert accelerator.boot_failure(Accelerator(False, ""), MACHINE, KERNEL, console, deadline=120) == ""
    assert qemus() == []


@needs_qemu
@needs_kvm_device
def test_a_guest_that_hangs_is_given_up(console: Console) -> None:
    # A guest that never starts looks to us like one that hangs. kvm64 sets no register that a host may refuse.
    assert MACHINE is not None
    assert KERNEL is not None
    hanging = accelerator._Machine(MACHINE.qemu, (*MACHINE.arguments, "-cpu", "kvm64", "-S"), MACHINE.serial)
    assert "no kernel came up" in accelerator.boot_failure(Accelerator(True, ""), hanging, KERNEL, console, deadline=2)
    assert qemus() == []


@needs_qemu
def test_a_guest_that_only_resets_is_no_success(console: Console, tmp_path: Path) -> None:
    # The start of a kernel without its rest: decompression fails, or the guest resets.
    assert MACHINE is not None
    assert KERNEL is not None
    broken = tmp_path / "vmlinuz"
    broken.write_bytes(KERNEL.read_bytes()[:65536])
    assert accelerator.boot_failure(Accelerator(False, ""), MACHINE, broken, console, deadline=10) != ""


@needs_qemu
def test_choose_settles_and_remembers(console: Console, tmp_path: Path) -> None:
    verdict = accelerator.choose(console)
    assert verdict.reason
    assert qemus() == []
    file = tmp_path / "amphora-mkimage/accelerator.json"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert not verdict.kvm
        assert not file.exists()
        return
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o777 == 0o700
    stored = json.loads(file.read_bytes())
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in stored["key"]
    # A different word in the file comes back: so no second trial was made.
    file.write_text(json.dumps({**stored, "reason": "from the file"}))
    assert accelerator.choose(console).reason == "from the file"


def save(directory: Path) -> Path:
    verdicts.save(directory / "accelerator.json", "key", asdict(Accelerator(True, "saved")))
    return directory / "accelerator.json"


def load(path: Path, key: str) -> Accelerator | None:
    return accelerator._from_fields(verdicts.load(path, key))


def test_a_verdict_comes_back(tmp_path: Path) -> None:
    assert load(save(tmp_path / "own"), "key") == Accelerator(True, "saved")
    assert [p.name for p in (tmp_path / "own").iterdir()] == ["accelerator.json"]


def world_writable(file: Path) -> None:
    file.chmod(0o666)


def writable_directory(file: Path) -> None:
    file.parent.chmod(0o777)


def symbolic_link(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real"))


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def other_type(file: Path) -> None:
    file.write_text('["key"]')


def other_fields(file: Path) -> None:
    file.write_text('{"key": "key", "kvm": "yes", "reason": "", "remedy": ""}')


def foreign_file(file: Path) -> None:
    os.chown(file, 12345, 12345)


def foreign_directory(file: Path) -> None:
    os.chown(file.parent, 12345, 12345)


@pytest.mark.parametrize(
    "harm", [world_writable, writable_directory, symbolic_link, fifo, truncated, other_type, other_fields]
)
def test_an_untrustworthy_file_is_not_believed(harm: Callable[[Path], None], tmp_path: Path) -> None:
    file = save(tmp_path / "own")
    harm(file)
    assert load(file, "key") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("harm", [foreign_file, foreign_directory])
def test_a_foreign_file_is_not_believed(harm: Callable[[Path], None], tmp_path: Path) -> None:
    file = save(tmp_path / "own")
    harm(file)
    assert load(file, "key") is None


def test_another_boot_asks_again(tmp_path: Path) -> None:
    assert load(save(tmp_path / "own"), "another key") is None


@pytest.mark.parametrize("name", ["kvm", "tcg"])
def test_the_override_is_believed(name: str, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(accelerator.OVERRIDE, name)
    assert accelerator.choose(console).kvm is (name == "kvm")


def test_a_wrong_override_is_named(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(accelerator.OVERRIDE, "hvf")
    with pytest.raises(BadValueError, match="hvf"):
        accelerator.choose(console)


def test_arguments() -> None:
    assert Accelerator(True, "").qemu_arguments()[:4] == ["-accel", "kvm", "-cpu", "host"]
    assert Accelerator(False, "").qemu_arguments()[:4] == ["-accel", "tcg,thread=multi", "-cpu", "max"]


def test_libguestfs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerator.prepare_libguestfs(Accelerator(True, "")) == {"LIBGUESTFS_BACKEND": "direct"}
    emulated = accelerator.prepare_libguestfs(Accelerator(False, ""))
    assert emulated == {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "gdb")
    assert accelerator.prepare_libguestfs(Accelerator(False, ""))["LIBGUESTFS_BACKEND_SETTINGS"] == "gdb:force_tcg"
