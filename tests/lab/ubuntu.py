"""A stand-in for Ubuntu's upstreams: a signed archive and a cloud root filesystem, made from Debian's packages.

The development machines reach the Debian archive only. What is like the real thing: the names and places of files, the
suites and components, how things are signed and hashed, the names of the packages that Ubuntu names differently, what a
cloud root filesystem has that an amphora has not. What is not: every program is Debian's.

Layout under the lab's directory::

    ubuntu/dists/noble{,-updates,-security}, ubuntu/pool         the archive
    cloud/minimal/releases/noble/release/                        the root filesystem, SHA256SUMS, SHA256SUMS.gpg
    keyring.gpg                                                  what both are signed with
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from signing import Signer
from static_server import LOOPBACK, serving

from amphora_mkimage import packages
from amphora_mkimage.bases import BASES, mirror
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.request import Request

RELEASE, VERSION = "noble", "24.04"
IMAGE = f"ubuntu-{VERSION}-minimal-cloudimg-amd64-root.tar.xz"
IMAGE_DIRECTORY = f"cloud/minimal/releases/{RELEASE}/release"
_DEBIAN = "trixie"
#: Version of the update that only the security suite has.
UPDATED_NETBASE = "99:1"
_FILES = Path(__file__).with_name("files") / "ubuntu"

#: Packages that only Ubuntu has, by name: what they depend on here.
_META = {
    "linux-image-virtual": "linux-image-cloud-amd64",
    "ubuntu-minimal": "sudo, netplan.io, python3",
    "snapd": "",
    "ubuntu-pro-client": "",
}
#: Brings the lab's key, at the path of the real one.
_KEYRING = "ubuntu-keyring"
#: What Ubuntu's minimal cloud image has, as far as it matters here.
_IN_IMAGE = (
    *("cloud-init", "netplan.io", "openssh-server", "sudo", "rsyslog", "snapd", "ubuntu-pro-client", "ubuntu-minimal"),
    *("unattended-upgrades", "vim-tiny", "netbase", "systemd-resolved", "dbus", "ca-certificates", "locales"),
)


@dataclass(frozen=True)
class UbuntuLab:
    """The finished directory."""

    root: Path

    @property
    def keyring(self) -> Path:
        return self.root / "keyring.gpg"

    @property
    def image(self) -> Path:
        return self.root / IMAGE_DIRECTORY / IMAGE

    def environment(self, url: str) -> dict[str, str]:
        """What points the tool to the lab, served at a URL."""
        return {
            "no_proxy": "127.0.0.1",
            "BASE_OS_MIRROR": f"{url}/ubuntu",
            "DIB_APT_KEYRING": str(self.keyring),
            "DIB_CLOUD_IMAGES": f"{url}/{IMAGE_DIRECTORY}",
            "DIB_CLOUD_IMAGES_KEYRING": str(self.keyring),
        }


def make(cache: Path) -> UbuntuLab:
    """Make the lab, or find the one that was made of the same things.

    :param cache: where labs are kept, and packages
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/var/tmp") as name:
        archive = _debian_archive(Path(name))
        archive.update()
        debs = archive.resolve(["?essential", "apt", *_wanted(), *_IN_IMAGE_DEBIAN])
        key = _key(debs)
        lab = UbuntuLab(cache / f"ubuntu-{key}")
        if not lab.root.exists():
            archive.download(debs)
            place = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
            try:
                _fill(place, archive)
                place.rename(lab.root)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    return lab


_IN_IMAGE_DEBIAN = [name for name in _IN_IMAGE if name not in _META]


def _wanted() -> list[str]:
    """Every package that an Ubuntu amphora may want, less those that only Ubuntu has."""
    base = BASES["ubuntu-minimal"]
    names: set[str] = set()
    for switch in (True, False):
        request = Request(
            base=base, release=RELEASE, arch="amd64", size_gib=5, types=("tar",), output=Path(), cache_dir=Path(),
            working_dir=Path(), kernel_package="linux-image-cloud-amd64", nftables=switch, cpu_pinning=switch,
        )  # fmt: skip
        names |= set(packages.wanted(request))
    return sorted(names)


def _debian_archive(directory: Path) -> Archive:
    base = BASES["debian-minimal"]
    chosen = mirror.choose(base, _DEBIAN, "")
    network = mirror.apt_network_settings(os.environ)
    sources = chosen.sources(base, _DEBIAN, base.keyring)
    return Archive(directory / "apt", "amd64", sources, network, chosen.logins, Console())


def _key(debs: Iterable[Deb]) -> str:
    digest = hashlib.sha256()
    for part in (*(deb.sha256 for deb in debs), *(file.read_text() for file in _sources())):
        digest.update(part.encode())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    return [Path(__file__), *sorted(p for p in _FILES.rglob("*") if p.is_file())]


def _fill(place: Path, archive: Archive) -> None:
    signer = Signer(place, "key")
    (place / "keyring.gpg").write_bytes(signer.public(armour=False))
    try:
        pool = place / "ubuntu/pool"
        pool.mkdir(parents=True)
        for deb in archive.archives.glob("*.deb"):
            shutil.move(deb, pool / deb.name.replace("%3a", ":"))
        _relabel(pool)
        for name, depends in _META.items():
            _build(pool, {"Package": name, "Version": "1.0ubuntu1", "Depends": depends})
        _build(
            pool, {"Package": _KEYRING, "Version": "2023.11"}, {BASES["ubuntu"].keyring: signer.public(armour=False)}
        )
        security = place / "ubuntu/pool-security"
        security.mkdir()
        _update(pool, security)
        _suites(place / "ubuntu", signer)
        with serving(place) as url:
            _image(place, url, signer)
    finally:
        signer.close()


def _relabel(pool: Path) -> None:
    """Make base-files say that this is Ubuntu."""
    (original,) = pool.glob("base-files_*.deb")
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", original, tree], check=True)
        control = (tree / "DEBIAN/control").read_text()
        (tree / "DEBIAN/control").write_text(
            "".join(
                f"{line}ubuntu1\n" if line.startswith("Version: ") else f"{line}\n" for line in control.splitlines()
            )
        )
        (tree / "usr/lib/os-release").write_text((_FILES / "os-release").read_text())
        (tree / "DEBIAN/md5sums").unlink(missing_ok=True)
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, pool], check=True, capture_output=True)
    original.unlink()


def _build(target: Path, fields: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> None:
    """Make a package.

    :param files: content by path
    """
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        (tree / "DEBIAN").mkdir()
        more = {"Architecture": "all", "Maintainer": "nobody <nobody@example.invalid>", "Description": "stand-in"}
        text = "".join(f"{key}: {value}\n" for key, value in {**fields, **more}.items() if value)
        (tree / "DEBIAN/control").write_text(text)
        for path, content in {
            f"/usr/share/{fields['Package']}/stand-in": b"made for a test\n",
            **(files or {}),
        }.items():
            file = tree / path[1:]
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
        tree.chmod(0o755)
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True, capture_output=True)


def _update(pool: Path, security: Path) -> None:
    """Put an update of a package of the image into the security suite."""
    (original,) = pool.glob("netbase_*.deb")
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", original, tree], check=True)
        control = (tree / "DEBIAN/control").read_text()
        (tree / "DEBIAN/control").write_text(re.sub(r"(?m)^Version: .*$", f"Version: {UPDATED_NETBASE}", control))
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, security], check=True, capture_output=True)


def _suites(archive: Path, signer: Signer) -> None:
    """Write signed indexes; ipvsadm is in universe, as on Ubuntu."""
    universe = archive / "pool-universe"
    universe.mkdir()
    for deb in (archive / "pool").glob("ipvsadm_*.deb"):
        shutil.move(deb, universe / deb.name)
    for suite, pools in {
        RELEASE: {"main": "pool", "universe": "pool-universe"},
        f"{RELEASE}-updates": {},
        f"{RELEASE}-security": {"main": "pool-security"},
    }.items():
        place = archive / "dists" / suite
        for component in ("main", "universe"):
            directory = place / component / "binary-amd64"
            directory.mkdir(parents=True)
            index = _packages(archive, pools[component]) if component in pools else b""
            (directory / "Packages").write_bytes(index)
            with gzip.open(directory / "Packages.gz", "wb", compresslevel=1) as file:
                file.write(index)
        _release(place, suite)
        (place / "InRelease").write_bytes(signer.clear((place / "Release").read_bytes()))


def _packages(archive: Path, pool: str) -> bytes:
    return subprocess.run(["apt-ftparchive", "packages", pool], cwd=archive, capture_output=True, check=True).stdout


def _release(place: Path, suite: str) -> None:
    fields = {"Origin": "Ubuntu", "Label": "Ubuntu", "Suite": suite, "Codename": RELEASE, "Version": VERSION}
    fields |= {"Components": "main universe", "Architectures": "amd64"}
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
    done = subprocess.run(["apt-ftparchive", *options, "release", place], capture_output=True, check=True)
    (place / "Release").write_bytes(done.stdout)


def _image(place: Path, url: str, signer: Signer) -> None:
    """Make the root filesystem with mmdebstrap, before the security update is there, and sign its sum."""
    target = place / IMAGE_DIRECTORY
    target.mkdir(parents=True)
    source = f"deb [signed-by={place / 'keyring.gpg'}] {url}/ubuntu {RELEASE} main universe"
    argv = ["mmdebstrap", "--variant=apt", f"--include={','.join((*_IN_IMAGE, _KEYRING))}", "--format=tar"]
    argv += ['--aptopt=APT::Sandbox::User "root"']  # _apt may not read the key where the cache is root's alone
    # What the build of Ubuntu's images leaves in them.
    argv += [f"--customize-hook=sync-in {_FILES / 'image'} /"]
    with (target / IMAGE).open("wb") as file:
        with subprocess.Popen(
            [*argv, RELEASE, "-", source], stdout=subprocess.PIPE, env={**os.environ, **LOOPBACK}
        ) as child:
            subprocess.run(["xz", "-1", "-T0"], stdin=child.stdout, stdout=file, check=True)
        if child.returncode != 0:
            raise RuntimeError(f"mmdebstrap ended with status {child.returncode}")
    digest = hashlib.sha256((target / IMAGE).read_bytes()).hexdigest()
    other = "0" * 64
    sums = f"{other} *ubuntu-{VERSION}-minimal-cloudimg-amd64.img\n{digest} *{IMAGE}\n"
    (target / "SHA256SUMS").write_text(sums)
    (target / "SHA256SUMS.gpg").write_bytes(signer.detached(sums.encode()))
