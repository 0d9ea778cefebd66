"""A second build: from the cache, in the other formats, with a password and every command shown."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from image_files import info, root_field

GIB = 1 << 30
PASSWORD = "correct-horse-4711-battery"


@dataclass(frozen=True)
class Second:
    place: Path
    raw: Path
    vhd: Path
    tar: Path
    stderr: str
    log: str


@pytest.fixture(scope="module")
def raw_and_vhd(built, run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Second:
    place = tmp_path_factory.mktemp("second")
    (place / "password").write_text(f"{PASSWORD}\nnot this line\n")
    done = run_cli(
        *("-i", "debian-minimal", "-t", "raw,vhd,tar", "-s", "1", "-x", "-o", place / "a", "-w", place),
        *("-c", cache_dir, "-l", place / "log", "--root-password-file", place / "password"),
    )
    assert done.returncode == 0, done.stderr
    log = (place / "log").read_text()
    return Second(place, place / "a.raw", place / "a.vhd", place / "a.tar", done.stderr, log)


def test_raw(raw_and_vhd: Second) -> None:
    assert info(raw_and_vhd.raw, "raw")["virtual-size"] == GIB
    assert raw_and_vhd.raw.stat().st_size == GIB
    assert raw_and_vhd.raw.stat().st_blocks * 512 < GIB  # sparse


def test_vhd_is_exact(raw_and_vhd: Second) -> None:
    """Without -f qemu-img knows it for what it is, and it is no larger than the flavor's disk."""
    for options in ([], ["-f", "vpc"]):
        argv = ["qemu-img", "info", "--output=json", *options, raw_and_vhd.vhd]
        found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        assert (found["format"], found["virtual-size"]) == ("vpc", GIB)


def test_raw_and_vhd_have_the_same_content(raw_and_vhd: Second) -> None:
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "vpc", raw_and_vhd.raw, raw_and_vhd.vhd]
    subprocess.run(argv, check=True, capture_output=True)


def test_a_second_build_fetches_indexes_only(raw_and_vhd: Second) -> None:
    assert "unpack the cached base" in raw_and_vhd.stderr
    assert "bootstrap" not in re.sub(r"\+ .*", "", raw_and_vhd.stderr)
    fetched = [line for line in raw_and_vhd.log.splitlines() if re.search(r"\] Get:\d+ ", line)]
    assert [line for line in fetched if not re.search(r"(InRelease|Packages|Diff|Release(\.gpg)?)\b", line)] == []


def test_trace_shows_commands(raw_and_vhd: Second, built) -> None:
    assert re.search(r"\] \+ mke2fs ", raw_and_vhd.stderr)
    assert "+ mke2fs" not in built.stderr
    log = built.log.read_text()
    assert "+ mke2fs" in log
    # Line by line what was said, from the first to the last step.
    assert [line for line in built.stderr.splitlines() if line not in log.splitlines()] == []


def test_the_password_is_in_the_image_as_its_hash_only(raw_and_vhd: Second, cache_dir: Path) -> None:
    digest = root_field(raw_and_vhd.tar)
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    assert library.crypt(PASSWORD.encode(), digest.encode()) == digest.encode()
    texts = [raw_and_vhd.stderr, raw_and_vhd.log, (raw_and_vhd.place / "a.raw.manifest.json").read_text()]
    for text in texts:
        assert PASSWORD not in text
        assert digest not in text
    for file in (raw_and_vhd.raw, raw_and_vhd.tar):
        found = subprocess.run(
            ["grep", "--count", "--text", "--fixed-strings", PASSWORD, file], capture_output=True, check=False
        )
        assert found.stdout.strip() == b"0"
    assert json.loads(texts[2])["settings"]["root_password"] == "set"
    found = subprocess.run(["grep", "-rlF", "-e", PASSWORD, "-e", digest, cache_dir], capture_output=True, check=False)
    assert found.stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="a loopback mount needs root")
def test_loopback_mount(raw_and_vhd: Second, tmp_path: Path) -> None:
    done = subprocess.run(["sfdisk", "--json", raw_and_vhd.raw], capture_output=True, text=True, check=True)
    root = json.loads(done.stdout)["partitiontable"]["partitions"][2]
    options = f"loop,ro,noload,offset={root['start'] * 512},sizelimit={root['size'] * 512}"
    subprocess.run(["mount", "-t", "ext4", "-o", options, raw_and_vhd.raw, tmp_path], check=True)
    try:
        assert "ID=debian" in (tmp_path / "etc/os-release").read_text()
        assert os.access(tmp_path / "usr/sbin/haproxy", os.X_OK)
        (kernel,) = (tmp_path / "boot").glob("vmlinuz-*")
        version = kernel.name.removeprefix("vmlinuz-")
        assert (tmp_path / f"boot/initrd.img-{version}").stat().st_size > 1 << 20
        assert (tmp_path / f"lib/modules/{version}/modules.dep").exists()
        assert version in (tmp_path / "boot/grub/grub.cfg").read_text()
        assert (tmp_path / "etc/shadow").stat().st_gid == 42
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# -- the plan --------------------------------------------------------------------------------------------------------


def test_the_disk_has_a_table_and_three_partitions(raw_and_vhd) -> None:
    done = subprocess.run(["sfdisk", "--json", raw_and_vhd.raw], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert table["label"] == "gpt"
    assert [entry["name"] for entry in table["partitions"]] == ["bios", "esp", "root"]
    subprocess.run(["sfdisk", "--verify", raw_and_vhd.raw], check=True, capture_output=True)


# -- manifest and sums -----------------------------------------------------------------------------------------------
