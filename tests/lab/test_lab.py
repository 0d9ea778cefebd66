"""The lab itself: its RPM distributions are what they claim to be, as far as the real tools can tell."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redhat_tree
import rpm_package
from redhat import DISTRIBUTIONS
from rpm_repository import Repository
from rpm_signing import Key
from serve import Site, Upstream

from amphora_mkimage.bases import dnf
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest

#: Fedora stands for all where only the tree matters; the others differ in names, which other tests look at.
NAME = "fedora"
#: That the stand-in is what it says; what is built from it is tested in CI.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class System:
    """A Fedora in a directory, and the site that its packages come from."""

    root: Path
    site: Site
    repository: Repository

    def command(self, *arguments: str) -> str:
        """Run a program in it; its output, with a few words of the error when it fails."""

        def run() -> str:
            guest = NamespaceGuest(self.root, Console())
            try:
                with guest.mounted():
                    return guest.command(list(arguments))
            finally:
                guest.close()

        return userns.run(run)

    def dnf(self, *arguments: str, url: str | None = None) -> str:
        """Run dnf on Fedora's own repository file, with the metalink replaced by a server of ours."""
        path = DISTRIBUTIONS[NAME].repositories["fedora"]
        places = ["fedora.metalink=", f"fedora.baseurl={url or f'{self.site.url}/{path}'}"]
        options = [f"--setopt={place}" for place in places]
        return self.command("dnf", "-y", "--disablerepo=updates", *options, *arguments)


@pytest.fixture(scope="module")
def system(
    redhat_upstream: Upstream, lab_repository: Callable[[str], Repository], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    root = tmp_path_factory.mktemp("system") / "root"
    repository = lab_repository(NAME)

    def install() -> None:
        redhat_tree.install(repository, root, Console())
        (root / "etc/rpm").mkdir(exist_ok=True)
        shutil.copy(dnf.FILES / "macros.amphora-build", root / "etc/rpm")

    userns.run(install)
    yield System(root, redhat_upstream(NAME, image=False), repository)
    userns.run(lambda: subprocess.run(["rm", "-rf", root], check=True))


def test_it_is_what_it_says(system: System) -> None:
    release = system.command("sh", "-c", ". /etc/os-release && echo $ID $VERSION_ID")
    assert release == "fedora 44"
    assert system.command("rpm", "-q", "--qf", "%{NAME}", "--whatprovides", "system-release") == "fedora-release"
    # The package manager of the distribution that it is made of is gone.
    assert not (system.root / "usr/bin/dpkg").exists()
    assert not (system.root / "var/lib/dpkg").exists()
    # Every file that the database lists is there, with its digest, owner and mode.
    wrong = [line for line in system.command("sh", "-c", "rpm -Va --noconfig || :").splitlines() if line]
    mounted = ("/dev", "/proc", "/run", "/sys", "/tmp")  # while this runs
    assert [line for line in wrong if not line.endswith(mounted)] == []


def test_the_kernel_is_laid_out_as_fedoras(system: System) -> None:
    release = system.command("ls", "/lib/modules")
    for name in ("vmlinuz", "config", "System.map", "modules.dep"):
        assert (system.root / "usr/lib/modules" / release / name).is_file()
    boot = system.root / "boot"
    assert (boot / f"vmlinuz-{release}").read_bytes()[0x202:0x206] != b""
    assert (boot / f"initramfs-{release}.img").stat().st_size > 5_000_000
    (entry,) = (boot / "loader/entries").iterdir()
    assert re.fullmatch(rf"[0-9a-f]{{32}}-{re.escape(release)}\.conf", entry.name)
    fields = dict(line.split(" ", 1) for line in entry.read_text().splitlines())
    assert fields["linux"] == f"/boot/vmlinuz-{release}"
    assert fields["options"] == redhat_tree.KERNEL_OPTIONS
    listing = system.command("lsinitrd", f"/boot/initramfs-{release}.img")
    assert {"btrfs.ko", "virtio_blk.ko", "xfs.ko"} <= {Path(line).name.split(".xz")[0] for line in listing.split()}


def test_boot_loader_files_are_where_red_hat_has_them(system: System) -> None:
    for path in (
        "usr/sbin/grub2-mkconfig", "usr/sbin/grub2-bios-setup", "usr/bin/grub2-mkimage",
        "usr/lib/grub/i386-pc/boot.img",
        "boot/efi/EFI/fedora/grubx64.efi", "boot/efi/EFI/fedora/shimx64.efi", "boot/efi/EFI/BOOT/BOOTX64.EFI",
        "etc/default/grub", "etc/selinux/config", "etc/selinux/targeted/contexts/files/file_contexts",
    ):  # fmt: skip
        assert (system.root / path).is_file(), path


def test_dnf_installs_signed_packages(system: System) -> None:
    assert "gpgcheck=1" in (system.root / "etc/yum.repos.d/fedora.repo").read_text()
    system.dnf("install", "haproxy", "keepalived", "ipvsadm")
    names = system.command("rpm", "-q", "--qf", "%{NAME}\\n", "haproxy", "keepalived", "ipvsadm")
    assert names.split() == ["haproxy", "keepalived", "ipvsadm"]
    # Its scriptlet made the account, and the presets left the service off.
    assert "/var/lib/haproxy" in system.command("getent", "passwd", "haproxy")
    assert system.command("sh", "-c", "systemctl is-enabled haproxy.service || :") == "disabled"
    assert "HAProxy version" in system.command("haproxy", "-v")


@pytest.mark.parametrize(("signed", "complaint"), [(False, "is not signed"), (True, "not installed|not correct")])
def test_dnf_refuses_what_the_key_did_not_sign(system: System, tmp_path: Path, signed: bool, complaint: str) -> None:
    rpms = _small_repository(tmp_path)
    if signed:
        other = Key(tmp_path / "key", "Somebody else")
        other.sign_rpms(list(rpms.glob("*.rpm")))
        other.stop()
    subprocess.run(["createrepo_c", "--quiet", rpms], check=True)
    with Site(rpms) as site, pytest.raises(MkimageError) as caught:
        system.dnf("--setopt=metadata_expire=0", "install", "intruder", url=site.url)
    assert re.search(complaint, "\n".join(caught.value.tail), re.IGNORECASE)
    assert "not installed" in system.command("sh", "-c", "rpm -q intruder || :")


def _small_repository(place: Path) -> Path:
    for name in ("tree/usr/share/intruder", "work", "rpms"):
        (place / name).mkdir(parents=True)
    (place / "tree/usr/share/intruder/file").write_text("")
    package = rpm_package.Package("intruder", files={"/usr/share/intruder/file"})
    rpm_package.build([package], place / "tree", place / "work", place / "rpms")
    return place / "rpms"


@pytest.mark.parametrize(
    "name", [NAME, pytest.param("centos", marks=pytest.mark.slow), pytest.param("rocky", marks=pytest.mark.slow)]
)
def test_images_are_published_as_the_real_ones(redhat_upstream: Upstream, name: str, tmp_path: Path) -> None:
    distribution = DISTRIBUTIONS[name]
    site = redhat_upstream(name)
    image, checksum = Path(distribution.image), Path(distribution.checksum)
    listing = _get(f"{site.url}/{image.parent}/").decode()
    assert f'href="{image.name}"' in listing
    text = _get(f"{site.url}/{checksum}")
    (tmp_path / checksum.name).write_bytes(text)
    assert text.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----") == (distribution.signed == "clear")
    if distribution.signed:
        signed = [tmp_path / checksum.name]
        if distribution.signed == "detached":
            signed.insert(0, tmp_path / "signature")
            signed[0].write_bytes(_get(f"{site.url}/{checksum}.asc"))
        (tmp_path / "keyring.gpg").write_bytes(_get(f"{site.url}/{name}.gpg"))
        argv = ["gpgv", "--keyring", tmp_path / "keyring.gpg", *signed]
        subprocess.run(argv, check=True, capture_output=True)
    (tmp_path / image.name).symlink_to(site.root / image)
    argv = ["sha256sum", "--check", "--ignore-missing", checksum.name]
    assert f"{image.name}: OK" in subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_the_server_resumes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with Site(tmp_path) as site:
        assert _get(f"{site.url}/file", "bytes=40-") == bytes(range(40, 100))
        assert _get(f"{site.url}/file", "bytes=40-49") == bytes(range(40, 50))
        assert _get(f"{site.url}/file") == bytes(range(100))
        with pytest.raises(urllib.error.HTTPError, match="416"):
            _get(f"{site.url}/file", "bytes=100-")
        assert site.requested == ["/file"] * 4


def _get(url: str, part: str | None = None) -> bytes:
    request = urllib.request.Request(url, headers={"Range": part} if part else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return bytes(response.read())
