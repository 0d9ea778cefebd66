"""Whole builds with ``--guest appliance``, their end by a signal, and a host whose disk fills up."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from pathlib import Path

import guest_builds
import pytest
import tree_compare
import ubuntu
from leftover import SECONDS, marked, wait_until
from tree_compare import Allowance

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.verify.command import verify

# --- a signal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_nothing(number: int, ubuntu_lab, start_cli, cache_dir: Path, tmp_path: Path) -> None:
    output, work, elsewhere = tmp_path / "output", tmp_path / "work", tmp_path / "elsewhere"
    for directory in (output, work, elsewhere):
        directory.mkdir()
    marker = f"AMPHORA_TEST_MARKER={tmp_path}"
    environment = {**ubuntu_lab.environment, **dict([marker.split("=", 1)]), "LIBGUESTFS_TMPDIR": str(elsewhere)}
    child = start_cli(
        *("--guest", "appliance", "-o", output / "a", "-w", work, "-c", cache_dir),
        env=environment,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    text = ""
    for line in child.stderr:
        text += line.decode()
        if "Starting the appliance" in text:
            break
    else:
        pytest.fail(f"the build ended early: {text}")

    def qemu() -> bool:
        return any((process / "comm").read_text().startswith("qemu") for process in marked(marker.encode()))

    assert wait_until(qemu)
    assert list(work.glob(".amphora-mkimage-*/appliance/libguestfs*")), "libguestfs' files are not where they go"
    child.send_signal(number)
    rest = child.stderr.read().decode()
    status = child.wait(SECONDS)
    child.stderr.close()
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130), rest
    if number == signal.SIGINT:
        assert "error: interrupted" in rest
        assert "Traceback" not in rest
        assert list(work.iterdir()) == []  # an interrupt is orderly: nothing is left when the command returns
    assert wait_until(lambda: not any(marked(marker.encode())) and not list(work.iterdir()))
    assert list(output.iterdir()) == []
    assert list(elsewhere.iterdir()) == []


# --- a full disk ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="libguestfs' cache belongs to root where the namespace's root is another")
def test_a_host_whose_disk_fills_up(tmp_path: Path) -> None:
    """In a namespace, for a small filesystem: what the guest writes is more than fits."""
    base = guest_builds.tiny_base(tmp_path / "base.tar", ["dd", "sh"])

    def work() -> None:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs", 0, "size=150m")
        with guest_builds.appliance(base, Path("/mnt/work"), Console(io.StringIO()), size_gib=1) as build:
            with build.guest.mounted():
                build.guest.command(["dd", "if=/dev/urandom", "of=/var/large", "bs=1M", "count=300", "conv=fsync"])
            build.finish()

    with pytest.raises(MkimageError, match="the disk is full that the appliance writes to") as caught:
        userns.run(work)
    assert "free some space" in caught.value.remedy
    assert caught.value.status == 1


# --- a whole image -------------------------------------------------------------------------------------------------


#: mkinitramfs numbers files as it meets them; what is in it is the same.
INITRD = (Allowance("/boot/initrd.img-*", "content", "inode numbers, and zstd with another number of threads"),)


@pytest.mark.slow
def test_the_default_image(ubuntu_lab, run_cli, tmp_path: Path) -> None:
    """``amphora-mkimage --guest appliance``, from an empty cache; then what each guest takes of what the other kept."""

    def build(name: str, guest: str, types: str) -> str:
        where = ("-o", tmp_path / name, "-w", tmp_path, "-c", tmp_path / "cache")
        environment = ubuntu_lab.environment
        done = run_cli("--no-agent", "--guest", guest, "-t", types, *where, env=environment, timeout=4 * 3600)
        assert done.returncode == 0, done.stderr
        assert f"] guest: {guest}: asked for\n" in done.stderr
        return str(done.stderr)

    build("first", "appliance", "qcow2,tar")
    report = verify(tmp_path / "first.qcow2", Console())
    assert report.complete, report.text()
    manifest = json.loads((tmp_path / "first.qcow2.manifest.json").read_text())
    assert manifest["guest"] == "appliance"
    packages = {package["name"]: package["version"] for package in manifest["packages"]}
    assert packages["netbase"] == ubuntu.UPDATED_NETBASE
    assert packages.keys() >= {"haproxy", "keepalived", "linux-image-virtual"}
    assert not packages.keys() & {"snapd", "unattended-upgrades"}

    assert "unpack the cached base image\n" in build("second", "namespace", "tar")
    assert json.loads((tmp_path / "second.tar.manifest.json").read_text())["packages"] == manifest["packages"]
    assert "install packages" not in build("third", "appliance", "tar")
    first, second, third = (tree_compare.read_tar(tmp_path / f"{name}.tar") for name in ("first", "second", "third"))
    assert tree_compare.unexplained(second, first, INITRD)[0] == []
    assert tree_compare.unexplained(second, third, ()) == ([], [])


@pytest.mark.slow
def test_the_agent(built, run_cli, tmp_path: Path) -> None:
    """An amphora of our own as the base: no package is missing, so what is installed is the agent."""
    environment = {"DIB_LOCAL_IMAGE": str(built.tar)}
    where = ("-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache")
    done = run_cli("-i", "debian", "--guest", "appliance", "-t", "tar", *where, env=environment, timeout=4 * 3600)
    assert done.returncode == 0, done.stderr
    assert "] install the amphora agent\n" in done.stderr
    report = verify(tmp_path / "a.tar", Console())
    assert report.complete, report.text()
    here, there = (tree_compare.read_tar(path) for path in (tmp_path / "a.tar", built.tar))
    programs = [name for name in there if "/opt/amphora-agent-venv/" in name and name.endswith(".py")]
    assert len(programs) > 1000
    assert {name: here[name].content for name in programs} == {name: there[name].content for name in programs}
