"""Red Hat's family, against stand-ins of its upstreams (tests/lab/): whole builds from the published disk image."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import redhat_builds
import running
from cases import check_rendering
from redhat import DISTRIBUTIONS
from serve import Site, Upstream

from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify


@dataclass(frozen=True)
class Image:
    """One build.

    :param environment: that it was made with
    """

    name: str
    site: Site
    environment: dict[str, str]
    cache: Path
    qcow2: Path
    manifest: dict
    stderr: str


@pytest.fixture(
    scope="module",
    params=["fedora", pytest.param("centos", marks=pytest.mark.slow), pytest.param("rocky", marks=pytest.mark.slow)],
)
def image(
    request: pytest.FixtureRequest, redhat_upstream: Upstream, run_cli, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    name = str(request.param)
    site = redhat_upstream(name)
    place, cache = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("cache")
    env = redhat_builds.environment(site, name)
    done = run_cli(
        "-i", name, "--no-agent", "-t", "qcow2,tar", "-o", place / "a", "-w", place, "-c", cache, "-l", place / "log",
        env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / "a.qcow2.manifest.json").read_text())
    return Image(name, site, env, cache, place / "a.qcow2", manifest, done.stderr)


def test_it_is_complete(image: Image) -> None:
    report = verify(image.qcow2, Console())
    assert report.complete, report.text()


def test_cloud_init_writes_the_management_network_for_network_manager(image: Image, tmp_path: Path) -> None:
    check_rendering(image.qcow2.with_suffix(".tar"), tmp_path, "NetworkManager")


@pytest.mark.slow
def test_it_runs(image: Image, run_cli) -> None:
    running.check(run_cli, image.qcow2)


@pytest.mark.slow
def test_it_runs_behind_a_router(image: Image, run_cli) -> None:
    """With static addresses of both families, which whatever the image has in place of ifupdown brings up."""
    running.check(run_cli, image.qcow2, "--network", "static")


def test_the_manifest_says_where_it_comes_from(image: Image) -> None:
    base, distribution = image.manifest["base"], DISTRIBUTIONS[image.name]
    assert base["image"]["url"].endswith(f"/{Path(distribution.image).name}")
    assert bool(base["image"]["signed_by"]) == bool(distribution.signed)
    assert base["mirror"] == image.environment["BASE_OS_MIRROR"]
    names = {package["name"] for package in image.manifest["packages"]}
    assert names >= {"haproxy", "keepalived", "ipvsadm", "kernel", "grub2-efi-x64", "shim-x64", "NetworkManager"}
    assert not names & {"firewalld", "gpg-pubkey"}
    assert image.manifest["settings"]["mandatory_access_control"] == "permissive"


def test_files_have_their_selinux_labels(image: Image, tmp_path: Path) -> None:
    redhat_builds.check_labels(image.qcow2, tmp_path)


def build_again(image: Image, run_cli, place: Path, name: str, *arguments: str):
    return run_cli(
        "-i", image.name, "--no-agent", "-t", "tar", "-o", place / name, "-w", place, "-c", image.cache, *arguments,
        env=image.environment,
    )  # fmt: skip


def test_a_second_build_installs_nothing(image: Image, run_cli, tmp_path: Path) -> None:
    done = build_again(image, run_cli, tmp_path, "b")
    assert done.returncode == 0, done.stderr
    for step in ("install packages", "download packages", "appliance", "fetching"):
        assert step not in done.stderr
    manifest = json.loads((tmp_path / "b.tar.manifest.json").read_text())
    assert manifest["packages"] == image.manifest["packages"]
    assert manifest["base"]["cached"] and manifest["base"]["image"]["cached"]


@pytest.mark.slow
def test_switches(image: Image, run_cli, tmp_path: Path) -> None:
    """Another selection is installed anew, from the tree of the disk that was kept, and the packages too."""
    before = len(image.site.requested)
    done = build_again(image, run_cli, tmp_path, "b", "-n", "-m", "-e")
    assert done.returncode == 0, done.stderr
    assert "install packages" in done.stderr
    assert "appliance" not in done.stderr
    fetched = {path.rpartition("/")[2] for path in image.site.requested[before:] if path.endswith(".rpm")}
    assert any(file.startswith("tuned-") for file in fetched)
    assert not [file for file in fetched if file.startswith(("haproxy-", "kernel-"))]
    names = {package["name"] for package in json.loads((tmp_path / "b.tar.manifest.json").read_text())["packages"]}
    assert names >= {"haproxy", "tuned"}
    assert not names & {"openssh-server", "irqbalance"}
    with tarfile.open(tmp_path / "b.tar") as tar:
        selinux, grub = (tar.extractfile(f"./{name}") for name in ("etc/selinux/config", "etc/default/grub"))
        assert selinux is not None
        assert grub is not None
        assert "SELINUX=enforcing" in selinux.read().decode().splitlines()
        assert "isolcpus=1-N" in grub.read().decode()
