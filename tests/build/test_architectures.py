"""Images for other architectures than the usual one: Debian's i386 natively, arm64 through qemu-user."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import loopback_mirror
import pytest

from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import foreign

GIB = 1 << 30


def needs(arch: str) -> None:
    """Skip where the host does not run the architecture's programs; ``check`` tells why."""
    try:
        foreign.require(arch)
    except HostError as error:
        pytest.skip(error.what)


def table(raw: Path) -> list[tuple[str, str]]:
    """Names and types of the partitions."""
    done = subprocess.run(["sfdisk", "--json", raw], capture_output=True, text=True, check=True)
    return [(entry["name"], entry["type"]) for entry in json.loads(done.stdout)["partitiontable"]["partitions"]]


def verify(run_cli, image: Path, timeout: float = 900) -> dict[str, str]:
    """Results of all checks by identifier; the image must be complete."""
    done = run_cli("verify", "--json", image, timeout=timeout)
    report = json.loads(done.stdout)
    assert done.returncode == 0, json.dumps(report, indent=2)
    return {check["id"]: check["result"] for check in report["checks"]}


def elf_machine(tar: Path, name: str) -> int:
    """e_machine of a program in a tar (elf(5))."""
    with tarfile.open(tar) as archive:
        file = archive.extractfile(f"./{name}")
        assert file is not None
        head = file.read(20)
    assert head[:4] == b"\x7fELF"
    return int.from_bytes(head[18:20], "little")


def test_i386(run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """Its release is the last that has a kernel; BIOS and 32-bit UEFI."""
    needs("i386")
    (tmp_path / "mirror").mkdir()
    with loopback_mirror.serving(
        tmp_path / "mirror", cache_dir, "-i", "debian-minimal", "--no-agent", "-a", "i386"
    ) as mirror:
        done = run_cli(
            *(
                "-i",
                "debian-minimal",
                "--no-agent",
                "-a",
                "i386",
                "-t",
                "raw,tar,qcow2",
                "-o",
                tmp_path / "a",
                "-w",
                tmp_path,
            ),
            *("-c", tmp_path / "cache"),
            env=mirror.variables,
            timeout=1800,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.qcow2.manifest.json").read_text())
    assert (found["settings"]["arch"], found["settings"]["release"]) == ("i386", "bookworm")
    assert {package["arch"] for package in found["packages"]} == {"i386", "all"}
    assert elf_machine(tmp_path / "a.tar", "usr/sbin/haproxy") == 3
    names = [name for name, _ in table(tmp_path / "a.raw")]
    assert names == ["bios", "esp", "root"]
    assert table(tmp_path / "a.raw")[-1][1] == ARCHITECTURES["i386"].root_type
    results = verify(run_cli, tmp_path / "a.qcow2")
    assert (results["boot.bios"], results["boot.efi"]) == ("pass", "pass")


@pytest.mark.slow
def test_arm64_is_built_complete_and_runs(run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """UEFI only. Half an hour where nothing is cached: everything in the image runs through qemu-user."""
    needs("arm64")
    if shutil.which("qemu-system-aarch64") is None or not Path("/usr/share/AAVMF").is_dir():
        pytest.skip("needs qemu-system-arm and qemu-efi-aarch64")
    done = run_cli(
        *(
            "-i",
            "debian-minimal",
            "--no-agent",
            "-a",
            "aarch64",
            "-t",
            "qcow2,tar",
            "-o",
            tmp_path / "a",
            "-w",
            tmp_path,
        ),
        *("-c", cache_dir),
        timeout=7200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.qcow2.manifest.json").read_text())
    assert {package["arch"] for package in found["packages"]} == {"arm64", "all"}
    assert elf_machine(tmp_path / "a.tar", "usr/sbin/haproxy") == 183
    results = verify(run_cli, tmp_path / "a.qcow2")
    assert (results["boot.bios"], results["boot.efi"]) == ("not-applicable", "pass")
    done = run_cli("boot", "--json", "--timeout", "1800", tmp_path / "a.qcow2", timeout=3600)
    result = json.loads(done.stdout)
    assert done.returncode == 0, json.dumps(result, indent=2)
    assert (result["firmware"], result["state"]) == ("uefi", "running")
    assert result["kernel"].endswith("arm64")
    assert result["haproxy"]["http_status"] == 200
    assert "DataSourceConfigDrive" in result["cloud_init"]["datasource"]
