"""RHEL, of which nothing is published: from an image of one's own, which is the lab's CentOS under another name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redhat_builds
import redhat_tree
import running
from rpm_repository import Repository
from serve import Site, Upstream

from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns
from amphora_mkimage.verify.command import verify

pytestmark = pytest.mark.slow

#: A host that nobody has: its packages come through the proxy.
_HOST = "cdn.redhat.example"
_REPOSITORY = """\
[rhel-10-for-x86_64-{name}-rpms]
name=Red Hat Enterprise Linux 10 for x86_64 - {name}
baseurl=http://{host}/{path}
enabled=1
gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-centosofficial-SHA256
"""


def make_image(repository: Repository, root: Path, target: Path) -> None:
    """Make the tar of a system that says that it is RHEL."""
    redhat_tree.install(repository, root, Console())
    release = (root / "usr/lib/os-release").read_text().replace('ID="centos"', 'ID="rhel"')
    (root / "usr/lib/os-release").write_text(release.replace("CentOS Stream", "Red Hat Enterprise Linux"))
    (root / "etc/yum.repos.d/centos.repo").unlink()
    repositories = repository.distribution.repositories.items()
    text = "\n".join(_REPOSITORY.format(host=_HOST, name=name, path=path) for name, path in repositories)
    (root / "etc/yum.repos.d/redhat.repo").write_text(text)
    folder = (root / "boot/efi/EFI/centos").rename(root / "boot/efi/EFI/redhat")
    grub = (folder / "grubx64.efi").read_bytes()
    assert b"/EFI/centos" in grub
    (folder / "grubx64.efi").write_bytes(grub.replace(b"/EFI/centos", b"/EFI/redhat"))
    subprocess.run(["tar", "-cf", target, "--numeric-owner", "--xattrs", "-C", root, "."], check=True)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def site(redhat_upstream: Upstream) -> Site:
    return redhat_upstream("centos", image=False)


@pytest.fixture(scope="module")
def built(
    lab_repository: Callable[[str], Repository], site: Site, run_cli, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An amphora of an image of one's own, whose packages come through a proxy on this host's loopback."""
    place = tmp_path_factory.mktemp("rhel")
    userns.run(lambda: make_image(lab_repository("centos"), place / "root", place / "rhel.tar"))
    environment = {
        "DIB_LOCAL_IMAGE": str(place / "rhel.tar"),
        "http_proxy": site.url.replace("127.0.0.1", "localhost"),
        "no_proxy": "127.0.0.1",
    }
    where = ("-o", place / "a", "-w", place, "-c", place / "cache", "-l", place / "log")
    done = run_cli("-i", "rhel", "--no-agent", *where, env=environment, timeout=1800)
    assert done.returncode == 0, done.stderr
    return place / "a.qcow2"


def test_it_is_complete(built: Path, site: Site, tmp_path: Path) -> None:
    assert any(path.startswith(f"http://{_HOST}/") and "/haproxy-" in path for path in site.requested)
    report = verify(built, Console())
    assert report.complete, report.text()
    manifest = json.loads(Path(f"{built}.manifest.json").read_text())
    assert manifest["base"]["mirror"] == ""
    assert "kernel" in {package["name"] for package in manifest["packages"]}
    redhat_builds.check_labels(built, tmp_path)


@pytest.mark.parametrize("firmware", [(), ("--uefi",)])
def test_it_runs(firmware: tuple[str, ...], built: Path, run_cli) -> None:
    """Under UEFI it finds its way by the folder "redhat"."""
    running.check(run_cli, built, *firmware)
