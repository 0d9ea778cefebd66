"""Partitions by architecture, in real tables."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.boot.machine import image_architecture
from amphora_mkimage.console import Console
from amphora_mkimage.disk import layout

PARTITIONS = {
    "amd64": ["bios", "esp", "root"],
    "i386": ["bios", "esp", "root"],
    "arm64": ["esp", "root"],
    "armhf": ["esp", "root"],
    "ppc64el": ["prep", "root"],
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_partitions(arch: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    places = layout.partition(disk, 1, arch, Console(io.StringIO()))
    done = subprocess.run(["/sbin/sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    entries = json.loads(done.stdout)["partitiontable"]["partitions"]
    assert [entry["name"] for entry in entries] == PARTITIONS[arch]
    assert places.root.offset == entries[-1]["start"] * 512
    assert places.root.size >= layout.root_capacity(1)
    assert (places.esp is None, places.prep is None) == ("esp" not in PARTITIONS[arch], "prep" not in PARTITIONS[arch])
    subprocess.run(["/sbin/sfdisk", "--verify", disk], check=True, capture_output=True)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_boot_tells_the_architecture_from_the_root_partition(arch: str, tmp_path: Path) -> None:
    console = Console(io.StringIO())
    disk, image = tmp_path / "disk", tmp_path / "disk.qcow2"
    layout.partition(disk, 1, arch, console)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, image], check=True)
    assert image_architecture(disk, "raw", tmp_path, console) == arch
    assert image_architecture(image, "qcow2", tmp_path, console) == arch
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "disk.qcow2"}


def test_a_disk_that_does_not_say(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    assert image_architecture(disk, "raw", tmp_path, Console(io.StringIO())) == ""
