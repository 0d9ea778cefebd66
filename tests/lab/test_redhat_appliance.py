"""Red Hat's family with ``--guest appliance``, against stand-ins of its upstreams (tests/lab/)."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import redhat_builds
import tree_compare
from serve import Site, Upstream
from tree_compare import Allowance, Entry

from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow

_LABEL = "security.selinux"
#: Every difference between the two guests' trees but the labels, and why it is right.
ALLOWANCES = (
    Allowance("/boot/initramfs-*.img", "content", "numbers of inodes in the archive; what is in it is the same"),
    Allowance("/usr/lib/sysimage/rpm/rpmdb.sqlite", "content", "the time when each package was installed"),
    Allowance("/var/lib/dnf/history.sqlite*", "content", "the same transactions, at other times"),
)


def build(site: Site, run_cli, place: Path, name: str, *arguments: str) -> str:
    """Build in an appliance; what was said."""
    where = ("-o", place / "appliance", "-w", place, "-c", place / "cache", "-l", place / "log")
    environment = redhat_builds.environment(site, name)
    done = run_cli(
        *("-i", name, "--no-agent", "--guest", "appliance", *arguments, *where), env=environment, timeout=4 * 3600
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "appliance.qcow2.manifest.json").read_text())["guest"] == "appliance"
    report = verify(place / "appliance.qcow2", Console())
    assert report.complete, report.text()
    redhat_builds.check_labels(place / "appliance.qcow2", place)
    return str(done.stderr)


def unlabelled(tree: Mapping[str, Entry]) -> dict[str, Entry]:
    return {
        path: dataclasses.replace(entry, xattrs=tuple(pair for pair in entry.xattrs if pair[0] != _LABEL))
        for path, entry in tree.items()
    }


def test_centos_with_switches(redhat_upstream: Upstream, run_cli, tmp_path: Path) -> None:
    """All but -y, for which the lab lacks crypto-policies, as Debian does."""
    switches = ("-e", "-n", "-m", "-r", "secret", "-k", "kernel")
    said = build(redhat_upstream("centos"), run_cli, tmp_path, "centos", "-t", "qcow2,tar", *switches)
    assert "] cache the packages\n" in said
    assert list((tmp_path / "cache/amphora-mkimage/rpms").glob("*.list"))
    manifest = json.loads((tmp_path / "appliance.tar.manifest.json").read_text())
    names = {package["name"] for package in manifest["packages"]}
    assert names >= {"haproxy", "tuned"}
    assert not names & {"openssh-server", "irqbalance"}
    with tarfile.open(tmp_path / "appliance.tar") as tar:
        texts = []
        for name in ("selinux/config", "default/grub", "shadow"):
            file = tar.extractfile(f"./etc/{name}")
            assert file is not None
            texts.append(file.read().decode())
    assert "SELINUX=enforcing" in texts[0].splitlines()
    assert "isolcpus=1-N" in texts[1]
    assert any(line.startswith("root:$y$") for line in texts[2].splitlines())


def test_fedora_is_the_same_in_either_guest(redhat_upstream: Upstream, run_cli, tmp_path: Path) -> None:
    """From an empty cache; the namespace takes from it what the appliance left there of the published image."""
    site = redhat_upstream("fedora")
    said = build(site, run_cli, tmp_path, "fedora", "-t", "qcow2,tar")
    assert any(path.endswith(".rpm") and "/haproxy-" in path for path in site.requested)
    steps = ("read the package repositories", "download packages", "install packages", "set SELinux labels")
    assert [step for step in steps if f"] {step}\n" not in said] == []
    report = verify(tmp_path / "appliance.tar", Console())
    assert report.complete, report.text()
    manifest = json.loads((tmp_path / "appliance.tar.manifest.json").read_text())

    done = run_cli(
        *("-i", "fedora", "--no-agent", "--guest", "namespace", "-t", "tar", "-o", tmp_path / "namespace"),
        *("-w", tmp_path, "-c", tmp_path / "cache"),
        env=redhat_builds.environment(site, "fedora"),
    )
    assert done.returncode == 0, done.stderr
    assert "] install packages\n" in done.stderr
    other = json.loads((tmp_path / "namespace.tar.manifest.json").read_text())
    assert other["packages"] == manifest["packages"]
    here, there = (tree_compare.read_tar(tmp_path / f"{guest}.tar", ALLOWANCES) for guest in ("appliance", "namespace"))
    labelled = {path for path, entry in here.items() if _LABEL in dict(entry.xattrs)}
    assert here.keys() - labelled == set()
    assert dict(here["/etc/shadow"].xattrs)[_LABEL].rstrip("\0").endswith(":shadow_t:s0")
    assert tree_compare.unexplained(there, unlabelled(here), ALLOWANCES) == ([], [])
