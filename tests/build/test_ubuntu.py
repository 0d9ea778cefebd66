"""The default command, against a stand-in for Ubuntu's upstreams (tests/lab/ubuntu.py), and what can go wrong there."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import running
import ubuntu
from cases import check_rendering
from signing import Signer
from static_server import serving

from amphora_mkimage.bases import BASES
from amphora_mkimage.console import Console
from amphora_mkimage.verify.command import verify


@dataclass(frozen=True)
class Image:
    """One build of the default base."""

    cache: Path
    qcow2: Path
    tar: Path
    manifest: dict
    stderr: str


def build(run_cli, environment: dict[str, str], place: Path, cache: Path, *arguments: str):
    """Without the agent: the lab's packages are Debian's, and so is the version of its Python."""
    return run_cli("--no-agent", "-o", place / "a", "-w", place, "-c", cache, *arguments, env=environment)


@pytest.fixture(scope="module")
def image(ubuntu_lab, run_cli, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """``amphora-mkimage`` without any option that chooses what is built."""
    place, cache = tmp_path_factory.mktemp("ubuntu"), tmp_path_factory.mktemp("cache")
    done = build(run_cli, ubuntu_lab.environment, place, cache, "-t", "qcow2,tar")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / "a.qcow2.manifest.json").read_text())
    return Image(cache, place / "a.qcow2", place / "a.tar", manifest, done.stderr)


@pytest.fixture(scope="module")
def names(image: Image) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(image.tar) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def content(image: Image, name: str) -> str:
    with tarfile.open(image.tar) as tar:
        file = tar.extractfile(f"./{name}")
        assert file is not None
        return file.read().decode()


def test_it_is_complete(image: Image) -> None:
    report = verify(image.qcow2, Console())
    assert report.complete, report.text()


def test_cloud_init_writes_the_management_network_for_netplan(image: Image, tmp_path: Path) -> None:
    check_rendering(image.tar, tmp_path, "netplan")


@pytest.mark.slow
def test_it_runs(image: Image, run_cli) -> None:
    running.check(run_cli, image.qcow2)


@pytest.mark.slow
def test_it_runs_behind_a_router(image: Image, run_cli) -> None:
    """With static addresses of both families, which whatever the image has in place of ifupdown brings up."""
    running.check(run_cli, image.qcow2, "--network", "static")


def test_the_manifest_says_where_it_comes_from(image: Image, ubuntu_lab) -> None:
    base = image.manifest["base"]
    assert base["image"]["url"].endswith(f"/{ubuntu.IMAGE}")
    assert base["image"]["checksum"] == f"sha256:{hashlib.sha256(ubuntu_lab.lab.image.read_bytes()).hexdigest()}"
    assert len(base["image"]["signed_by"]) == 40
    assert base["image"]["insecure"] is False
    assert base["suites"] == ["noble", "noble-updates", "noble-security"]
    assert image.manifest["settings"]["base_os"] == "ubuntu"


def test_packages_are_wanted_ones_and_up_to_date(image: Image) -> None:
    packages = {package["name"]: package["version"] for package in image.manifest["packages"]}
    assert packages.keys() >= {"haproxy", "keepalived", "ipvsadm", "linux-image-virtual", "grub-efi-amd64-signed"}
    assert not packages.keys() & {"snapd", "ubuntu-pro-client", "ubuntu-minimal", "unattended-upgrades"}
    # netbase of the image is older than that of the security suite, which is not in the image's own index.
    assert packages["netbase"] == ubuntu.UPDATED_NETBASE
    assert packages["base-files"].endswith("ubuntu1")


def test_traces_of_the_cloud_image_are_gone(image: Image, names: dict[str, tarfile.TarInfo]) -> None:
    assert [name for name in names if name.startswith(("etc/netplan/", "usr/share/snapd"))] == []
    assert "etc/default/grub.d/50-cloudimg-settings.cfg" not in names
    assert "discard,errors=remount-ro" not in content(image, "etc/fstab")
    sources = content(image, "etc/apt/sources.list.d/ubuntu.sources")
    assert "Suites: noble noble-updates noble-security\n" in sources
    assert "Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n" in sources
    assert [name for name in names if name.startswith("etc/apt/sources.list")] == [
        "etc/apt/sources.list.d",
        "etc/apt/sources.list.d/ubuntu.sources",
    ]
    assert [name for name in names if "policy-rc.d" in name or name.endswith(".distrib")] == []


def test_nothing_waits_for_the_network(names: dict[str, tarfile.TarInfo]) -> None:
    assert names["usr/lib/systemd/system/systemd-networkd-wait-online.service"].isreg()
    assert names["etc/systemd/system/systemd-networkd-wait-online.service"].linkname == "/dev/null"


def test_deferred_work_was_done(names: dict[str, tarfile.TarInfo]) -> None:
    (kernel,) = (name for name in names if name.startswith("boot/vmlinuz-"))
    assert names[kernel.replace("vmlinuz", "initrd.img")].size > 1 << 20
    assert names["usr/sbin/update-initramfs"].size > 1000
    assert names["usr/bin/py3compile"].size > 1000
    assert [name for name in names if name.startswith("usr/lib/python3/dist-packages/") and name.endswith(".pyc")]
    assert names["etc/ssl/certs/ca-certificates.crt"].size > 100_000


def test_a_second_build_downloads_and_installs_nothing(image: Image, ubuntu_lab, run_cli, tmp_path: Path) -> None:
    environment = dict(ubuntu_lab.environment)
    if not Path(BASES["ubuntu"].keyring).exists():
        # As on most hosts: the keyring is then the image's own, at a path of this build's, and the base is still found.
        del environment["DIB_APT_KEYRING"]
    done = build(run_cli, environment, tmp_path, image.cache, "-t", "tar", "-l", str(tmp_path / "log"))
    assert done.returncode == 0, done.stderr
    assert "unpack the cached base\n" in done.stderr
    for step in ("install packages", "download packages", "unpack the base image", "fetching"):
        assert step not in done.stderr
    manifest = json.loads((tmp_path / "a.tar.manifest.json").read_text())
    assert manifest["packages"] == image.manifest["packages"]
    assert manifest["base"]["cached"] and manifest["base"]["image"]["cached"]


def test_an_own_image_is_unpacked_like_a_published_one(image: Image, ubuntu_lab, run_cli, tmp_path: Path) -> None:
    own = tmp_path / "own image"
    own.symlink_to(ubuntu_lab.lab.image)
    environment = {**ubuntu_lab.environment, "DIB_LOCAL_IMAGE": str(own), "DIB_CLOUD_IMAGES": "http://127.0.0.1:9"}
    done = build(run_cli, environment, tmp_path, image.cache, "-t", "tar")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.tar.manifest.json").read_text())["base"]["image"]
    assert found["signed_by"] is None
    assert found["checksum"] == image.manifest["base"]["image"]["checksum"]


def test_the_plan(ubuntu_lab, run_cli, tmp_path: Path) -> None:
    done = build(run_cli, ubuntu_lab.environment, tmp_path, tmp_path / "cache", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "base      ubuntu noble amd64" in done.stdout
    assert ubuntu.IMAGE in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ubuntu_minimal_is_bootstrapped_from_its_archive(image: Image, ubuntu_lab, run_cli, tmp_path: Path) -> None:
    done = build(run_cli, ubuntu_lab.environment, tmp_path, image.cache, "-i", "ubuntu-minimal", "-t", "tar")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "a.tar.manifest.json").read_text())
    names = {package["name"] for package in manifest["packages"]}
    assert names >= {"haproxy", "keepalived", "ipvsadm", "linux-image-virtual"}
    # The cloud image brings a few packages more, none fewer.
    assert names <= {package["name"] for package in image.manifest["packages"]}


# -- what can be wrong with the upstream -----------------------------------------------------------------------------


@pytest.fixture
def upstream(ubuntu_lab, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A copy of the image's directory that a test may damage, and the environment that points to it."""
    place = tmp_path / "upstream"
    shutil.copytree(ubuntu_lab.lab.image.parent, place)
    with serving(place) as url:
        yield place, {**ubuntu_lab.environment, "DIB_CLOUD_IMAGES": url}


def refused(run_cli, environment: dict[str, str], tmp_path: Path, *arguments: str) -> str:
    output = tmp_path / "output"
    output.mkdir()
    done = build(run_cli, environment, output, tmp_path / "cache", *arguments)
    assert done.returncode == 1, done.stderr
    assert list(output.iterdir()) == []
    assert "Traceback" not in done.stderr
    assert "unpack the base image" not in done.stderr
    return str(done.stderr)


def test_a_changed_image(upstream, run_cli, tmp_path: Path) -> None:
    place, environment = upstream
    with (place / ubuntu.IMAGE).open("r+b") as file:
        file.seek(1 << 20)
        byte = file.read(1)
        file.seek(1 << 20)
        file.write(bytes([byte[0] ^ 1]))
    assert "is not what its sha256 checksum says" in refused(run_cli, environment, tmp_path)


def test_a_changed_checksum(upstream, run_cli, tmp_path: Path) -> None:
    place, environment = upstream
    (place / "SHA256SUMS").write_text(f"{'0' * 64} *{ubuntu.IMAGE}\n")
    assert "signature" in refused(run_cli, environment, tmp_path)


def test_signed_by_another_key(upstream, run_cli, tmp_path: Path) -> None:
    place, environment = upstream
    signer = Signer(tmp_path, "other")
    (place / "SHA256SUMS.gpg").write_bytes(signer.detached((place / "SHA256SUMS").read_bytes()))
    signer.close()
    assert "another key" in refused(run_cli, environment, tmp_path)


def test_without_a_signature(upstream, run_cli, tmp_path: Path) -> None:
    place, environment = upstream
    (place / "SHA256SUMS.gpg").unlink()
    text = refused(run_cli, environment, tmp_path)
    assert "SHA256SUMS.gpg" in text


def test_a_release_that_is_not_there(upstream, run_cli, tmp_path: Path) -> None:
    place, environment = upstream
    (place / "SHA256SUMS").unlink()
    assert "404" in refused(run_cli, environment, tmp_path)


def test_an_image_that_is_no_root_filesystem(ubuntu_lab, run_cli, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    subprocess.run(["tar", "-C", tmp_path / "tree", "-czf", tmp_path / "own.tar.gz", "."], check=True)
    environment = {**ubuntu_lab.environment, "DIB_LOCAL_IMAGE": str(tmp_path / "own.tar.gz")}
    done = build(run_cli, environment, tmp_path, tmp_path / "cache")
    assert done.returncode == 1, done.stderr
    assert "the base image lacks" in done.stderr
