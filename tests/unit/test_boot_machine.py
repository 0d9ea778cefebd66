"""Firmware, formats and the command line of qemu."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.boot import firmware
from amphora_mkimage.boot.hardware import HARDWARE
from amphora_mkimage.boot.machine import Drawing, image_format
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, ExitStatus, HostError

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def descriptor(directory: Path, name: str, **changes: Any) -> Path:
    """Write a descriptor as Debian's ovmf has it, and the files that it names."""
    directory.mkdir(exist_ok=True)
    code, store = directory / f"{name}-code.fd", directory / f"{name}-vars.fd"
    code.touch()
    store.touch()
    document = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(store), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["acpi-s3", "amd-sev", "verbose-dynamic"],
        **changes,
    }
    (directory / f"{name}.json").write_text(json.dumps(document))
    return code


def test_firmware_is_found_by_precedence(tmp_path: Path) -> None:
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    wanted = descriptor(usr, "60-plain")
    descriptor(usr, "70-other")
    assert firmware.find((etc, usr)).code == wanted
    mine = descriptor(etc, "60-plain")
    assert firmware.find((etc, usr)).code == mine
    # An empty file of the same name masks (docs/interop/firmware.json).
    (etc / "60-plain.json").write_text("")
    assert firmware.find((etc, usr)).code == usr / "70-other-code.fd"


@pytest.mark.parametrize(
    "changes",
    [
        {"features": ["secure-boot", "requires-smm"]},
        {"features": ["enrolled-keys"]},
        {"interface-types": ["bios"]},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["microvm"]}]},
        {"mapping": {"device": "memory", "filename": "/x"}},
        {"mapping": 5},
    ],
)
def test_firmware_of_another_kind_is_passed_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    descriptor(tmp_path, "10-other", **changes)
    with pytest.raises(HostError) as caught:
        firmware.find((tmp_path,))
    assert caught.value.status == ExitStatus.HOST
    assert "ovmf" in caught.value.remedy and "edk2-ovmf" in caught.value.remedy
    assert firmware.find((tmp_path,) if descriptor(tmp_path, "20-plain") else ()).code.name == "20-plain-code.fd"


@pytest.mark.skipif(not Path("/usr/share/OVMF").is_dir(), reason="needs Debian's ovmf")
def test_debians_firmware_is_found() -> None:
    found = firmware.find()
    assert found.code.stat().st_size > found.variables.stat().st_size > 0


@needs_qemu_img
@pytest.mark.parametrize(("created", "found"), [("qcow2", "qcow2"), ("vpc", "vpc")])
def test_formats_are_recognised(tmp_path: Path, created: str, found: str) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", created, str(image), "8M"], check=True)
    assert image_format(image, Console(io.StringIO())) == found


@needs_qemu_img
def test_a_raw_disk_is_known_by_its_boot_record(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(510) + b"\x55\xaa" + bytes(4096))
    assert image_format(image, Console(io.StringIO())) == "raw"


@needs_qemu_img
@pytest.mark.parametrize("content", [b"", b"hello\n", bytes(1 << 20), b"PK\x03\x04" * 1000])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    with pytest.raises(BadValueError, match="no disk image"):
        image_format(image, Console(io.StringIO()))


@needs_qemu_img
def test_other_formats_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(image), "8M"], check=True)
    with pytest.raises(BadValueError, match="vmdk"):
        image_format(image, Console(io.StringIO()))


@needs_qemu_img
@pytest.mark.parametrize("option", ["backing_file={},backing_fmt=raw", "data_file={}"])
def test_an_image_that_refers_to_another_file_is_refused(tmp_path: Path, option: str) -> None:
    other, image = tmp_path / "secret", tmp_path / "image"
    other.write_bytes(bytes(8 << 20))
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", option.format(other), str(image), "8M"]
    subprocess.run(argv, check=True)
    with pytest.raises(BadValueError, match="refers to another file"):
        image_format(image, Console(io.StringIO()))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValueError, match="no such file"):
        image_format(tmp_path / "missing", Console(io.StringIO()))


def test_commas_in_paths_do_not_become_options(tmp_path: Path) -> None:
    drawing = Drawing(
        image=tmp_path / "a,snapshot=off.qcow2",
        image_format="qcow2",
        drive=tmp_path / "config.iso",
        directory=tmp_path,
        accelerator=["-accel", "tcg"],
        memory=1024,
        firmware=None,
        http_port=9443,
        hardware=HARDWARE["amd64"],
    )
    arguments = drawing.arguments(3)
    disk = next(word for word in arguments if "id=root" in word)
    assert disk.endswith(f"{tmp_path}/a,,snapshot=off.qcow2")
    assert "snapshot=on" in disk.split(",")
    # The port of haproxy may be the agent's: it is then forwarded once.
    assert sum("hostfwd" in word and word.count("hostfwd=") == 1 for word in arguments) == 1


# --- architectures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HARDWARE)
def test_qemu_accepts_the_machine_of_each_architecture(name: str, tmp_path: Path) -> None:
    """qemu puts the machine together, with a disk and a config drive, and is told to end before it runs anything."""
    kind = HARDWARE[name]
    if shutil.which(kind.qemu) is None:
        pytest.skip(f"needs {kind.package}")
    image, drive = tmp_path / "disk", tmp_path / "drive"
    image.write_bytes(bytes(1 << 20))
    drive.write_bytes(bytes(1 << 20))
    drawing = Drawing(
        image=image,
        image_format="raw",
        drive=drive,
        directory=tmp_path,
        accelerator=Accelerator(False, "").qemu_arguments(kind.processor),
        memory=256,
        firmware=None,
        http_port=80,
        hardware=dataclasses.replace(kind, machines={"bios": next(iter(kind.machines.values()))}),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [*drawing.arguments(theirs.fileno()), "-S", "-monitor", "stdio"]
        done = subprocess.run(
            argv, input="quit\n", capture_output=True, text=True, pass_fds=[theirs.fileno()], timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("amd64", False, "bios"),
        ("amd64", True, "uefi"),
        ("i386", False, "bios"),
        ("arm64", False, "uefi"),
        ("arm64", True, "uefi"),
        ("ppc64el", False, "openfirmware"),
    ],
)
def test_firmware_by_architecture(name: str, asked: bool, kind: str) -> None:
    assert HARDWARE[name].firmware_kind(uefi=asked) == kind


@pytest.mark.parametrize("name", ["i386", "ppc64el"])
def test_uefi_where_there_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadValueError, match="--uefi"):
        HARDWARE[name].firmware_kind(uefi=True)


@pytest.mark.parametrize(("name", "package"), [("arm64", "qemu-efi-aarch64"), ("armhf", "qemu-efi-arm")])
def test_missing_firmware_names_the_package_of_the_architecture(tmp_path: Path, name: str, package: str) -> None:
    with pytest.raises(HostError) as caught:
        firmware.find((tmp_path,), hardware=HARDWARE[name])
    assert package in caught.value.remedy
    assert "--uefi" not in caught.value.remedy  # it would not help
    descriptor(tmp_path, "60-x86")
    targets = [{"architecture": HARDWARE[name].uefi, "machines": ["virt-*"]}]
    wanted = descriptor(tmp_path, "70-arm", targets=targets)
    assert firmware.find((tmp_path,), hardware=HARDWARE[name]).code == wanted


@pytest.mark.skipif(not Path("/usr/share/AAVMF").is_dir(), reason="needs Debian's qemu-efi-aarch64")
def test_debians_firmware_for_arm64_is_found() -> None:
    assert firmware.find(hardware=HARDWARE["arm64"]).code.exists()
