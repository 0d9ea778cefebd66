"""Packages by the guest's own dnf: fetched from a mirror on loopback, installed without network."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redhat_tree
from redhat import DISTRIBUTIONS
from redhat_builds import MIRRORS
from rpm_repository import Repository
from serve import Site, Upstream

from amphora_mkimage import cli, packages, request, settings
from amphora_mkimage.bases import BASES, dnf, dnf_downloads
from amphora_mkimage.bases.base import Wish
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.request import Request
from amphora_mkimage.stages import grub2, network_manager, redhat, selinux

UNWANTED = ["dosfstools", "firewalld"]  # the first is in the lab's image, the second is nowhere


@pytest.fixture(
    scope="module",
    params=["fedora", pytest.param("centos", marks=pytest.mark.slow), pytest.param("rocky", marks=pytest.mark.slow)],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(
    name: str, lab_repository: Callable[[str], Repository], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The system of a cloud image."""
    made = tmp_path_factory.mktemp(name) / "root"
    repository = lab_repository(name)
    userns.run(lambda: redhat_tree.install(repository, made, Console()))
    yield made
    userns.run(lambda: subprocess.run(["rm", "-rf", made], check=True))


@pytest.fixture(scope="module")
def site(name: str, redhat_upstream: Upstream) -> Site:
    return redhat_upstream(name, image=False)


def wanted_request(name: str) -> Request:
    values = settings.resolve(vars(cli.build_parser().parse_args(["-i", name])), {})
    return request.make(values, {}, lambda text: None)


def build(root: Path, name: str, mirror: str, wanted: list[str]) -> tuple[str, str]:
    """Do all that a build does with dnf; the hash of the metadata before and after."""

    def run() -> tuple[str, str]:
        guest = NamespaceGuest(root, Console())
        try:
            with guest.mounted():
                dnf.prepare(guest, name, mirror, {})
                hashes = (dnf.metadata(guest), dnf.metadata(guest))
                dnf.fetch(guest, wanted, UNWANTED)
                userns.without_network()
                dnf.install(guest, wanted, UNWANTED)
                dnf.finish(guest)
                for stage in (grub2, network_manager, redhat, selinux):
                    stage.run(guest, wanted_request(name))
        finally:
            guest.close()
        return hashes

    return userns.run(run)


def command(root: Path, *arguments: str) -> str:
    def run() -> str:
        guest = NamespaceGuest(root, Console())
        with guest.mounted():
            return guest.command(list(arguments))

    return userns.run(run)


def test_a_system_gets_the_packages_of_an_amphora(root: Path, site: Site, name: str) -> None:
    wanted = packages.wanted(wanted_request(name))
    first, second = build(root, name, f"{site.url}/{MIRRORS[name]}", wanted)
    assert first == second
    installed = set(command(root, "rpm", "-qa", "--qf", "%{NAME}\\n").split())
    assert set(wanted) <= installed
    assert "dosfstools" not in installed
    # The module packages of the kernel came, and so did their list of dependencies, for IPVS among them.
    (release,) = [path.name for path in (root / "usr/lib/modules").iterdir()]
    assert "ip_vs.ko" in (root / "usr/lib/modules" / release / "modules.dep").read_text()
    # One initramfs, made anew, with drivers for machines that are not the one that builds.
    assert [path.name for path in (root / "boot").glob("initramfs*")] == [f"initramfs-{release}.img"]
    listing = command(root, "lsinitrd", f"/boot/initramfs-{release}.img")
    assert {"virtio_blk", "virtio_scsi", "xfs"} <= {Path(line).name.split(".")[0] for line in listing.split()}


def test_nothing_of_the_build_is_left(root: Path, name: str) -> None:
    for path in ("var/cache/amphora-dnf", "etc/kernel/install.conf.d/90-amphora.conf", "etc/resolv.conf.amphora"):
        assert not (root / path).exists(), path
    assert [path for path in (root / "usr/share/doc").rglob("*") if path.is_file()] == []
    # The administrator's repositories are the distribution's, not the mirror of the build.
    assert "127.0.0.1" not in "".join(path.read_text() for path in (root / "etc/yum.repos.d").iterdir())


def test_the_boot_loaders_own_tool_reads_our_defaults(root: Path, name: str) -> None:
    text = command(root, "sh", "-c", ". /etc/default/grub && echo $GRUB_DEVICE $GRUB_CMDLINE_LINUX")
    assert text == f"LABEL=cloudimg-rootfs {grub2.kernel_options(wanted_request(name))}"
    assert (root / "etc/selinux/config").read_text().splitlines()[-2] == "SELINUX=permissive"


def test_a_kept_package_is_not_fetched_again_unless_it_is_another(
    root: Path, site: Site, name: str, tmp_path: Path
) -> None:
    """What lies in dnf's place from an earlier build is compared with the repository's checksum."""
    mirror, store = f"{site.url}/{MIRRORS[name]}", Store(tmp_path, pytest.fail)
    store.prepare()
    wish = Wish(BASES[name], "44", ["traceroute"], [], "kernel")

    def run(damage: bytes = b"") -> bytes:
        guest = NamespaceGuest(root, Console())
        try:
            with guest.mounted():
                dnf.prepare(guest, name, mirror, {})
                dnf.metadata(guest)
                dnf_downloads.restore(guest, store, wish)
                for path in guest.glob_expand(f"{dnf.CACHE}/*/packages/traceroute-*.rpm"):
                    guest.write_append(path, damage)
                dnf.fetch(guest, ["traceroute"], [])
                (path,) = guest.glob_expand(f"{dnf.CACHE}/*/packages/traceroute-*.rpm")
                content = guest.read_file(path)
                dnf._dnf(guest, "install", "--cacheonly", "traceroute", what="cannot install")
                dnf_downloads.keep(guest, store, wish)
                guest.command(["rpm", "-e", "traceroute"])
                dnf.finish(guest)
        finally:
            guest.close()
        return content

    def fetched() -> int:
        return sum("/traceroute-" in path for path in site.requested)

    first = userns.run(run)
    assert fetched() == 1
    assert userns.run(run) == first
    assert fetched() == 1
    assert userns.run(lambda: run(b"damage")) == first
    assert fetched() > 1


@pytest.mark.parametrize(("package", "flag"), [("kernel-longterm", "-k"), ("openstack-octavia-amphora-agent", "-p")])
def test_a_package_that_does_not_exist_is_named(root: Path, site: Site, name: str, package: str, flag: str) -> None:
    with pytest.raises(MkimageError, match=package) as caught:
        build(root, name, f"{site.url}/{MIRRORS[name]}", [package])
    assert flag in caught.value.remedy


def test_a_mirror_that_lacks_a_repository_fails_the_build(root: Path, name: str) -> None:
    """Also the second one: it may be the one with the security updates."""
    second = list(DISTRIBUTIONS[name].repositories)[1]
    with Site(root / "usr/share") as empty, pytest.raises(MkimageError, match="repositories") as caught:
        build(root, name, f"{empty.url}/nothing", ["haproxy"])
    assert "BASE_OS_MIRROR" in caught.value.remedy
    assert any(second in path or "nothing" in path for path in empty.requested)
