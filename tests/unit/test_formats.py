"""What clouds take an image for: OpenStack's own inspector on a disk of each type."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector

from amphora_mkimage.console import Console
from amphora_mkimage.disk import formats, layout
from amphora_mkimage.settings import IMAGE_TYPES

README = Path(__file__).resolve().parents[2] / "README.md"
DISKS = [kind for kind in IMAGE_TYPES if kind != "tar"]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of the smallest size, with a partition table and some content."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    places = layout.partition(path, 1, "amd64", Console())
    with path.open("r+b") as file:
        file.seek(places.root.offset)
        file.write(os.urandom(3 << 20))
        file.seek(0)
        file.write(b"\xeb\x63\x90GRUB")  # a boot sector begins with a jump (GRUB manual, "BIOS installation")
    return path


def written(disk: Path, kind: str, directory: Path) -> Path:
    path = directory / f"image.{kind}"
    with path.open("w+b") as file:
        formats.convert(disk, kind, file.fileno(), Console())
    return path


@pytest.mark.parametrize("kind", DISKS)
def test_glance_takes_it_for_what_the_readme_names(kind: str, disk: Path, tmp_path: Path) -> None:
    """Glance refuses content that is not of the image's disk_format (glance/location.py)."""
    named = dict(re.findall(r"^\| `([a-z0-9]+)` \| `([a-z0-9]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    path = written(disk, kind, tmp_path)
    inspector = format_inspector.detect_file_format(str(path))
    # A raw disk has no header of its own; Glance takes one with a partition table for raw.
    assert {"gpt": "raw"}.get(str(inspector), str(inspector)) == named[kind]
    if kind != "raw":  # there it is the size of the boot record, and the file's own size counts
        assert inspector.virtual_size == 1 << 30
    inspector.safety_check()


@pytest.mark.parametrize("kind", DISKS)
def test_nothing_but_the_disk_is_in_it(kind: str, disk: Path, tmp_path: Path) -> None:
    """Whoever reads it: qemu-img finds the format by itself, and exactly the disk in it."""
    path = written(disk, kind, tmp_path)
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", disk, path], check=True)
    argv = ["qemu-img", "info", "--output=json", path]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert found["virtual-size"] == 1 << 30


def test_a_vhd_has_its_header_first_and_does_not_grow(disk: Path, tmp_path: Path) -> None:
    """Without force_size qemu-img rounds up to a geometry, and the image is larger than the flavor's disk."""
    path = written(disk, "vhd", tmp_path)
    content = path.read_bytes()
    for footer in (content[:512], content[-512:]):
        assert footer.startswith(b"conectix")
        assert struct.unpack_from(">I", footer, 60)[0] == 3  # dynamic
        assert struct.unpack_from(">Q", footer, 48)[0] == 1 << 30
