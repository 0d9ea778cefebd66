"""Signed RPM repositories of a Fedora, a CentOS Stream and a Rocky that are made of Debian's packages.

Made once and kept by a hash over what they are made of; the bootstrap of the Debian that the packages come from is by
far the longest part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rpm_own
import rpm_package
import rpm_source
from redhat import DISTRIBUTIONS, Distribution
from rpm_signing import Key

from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns

_HERE = Path(__file__).parent
#: The tree, the RPMs' contents once more, and Debian's packages.
_TMPFS_BYTES = 4 << 30
_MAKERS = ("rpm_names.toml", "rpm_source.py", "rpm_own.py", "rpm_package.py", "redhat.py", "rpm_repository.py")


@dataclass(frozen=True)
class Repository:
    """A distribution's repositories.

    :param directory: holds a directory for each of its repositories, by id, with RPMs and repodata/
    :param base: paths of the RPMs that the cloud image has installed
    :param key: that signed them
    """

    distribution: Distribution
    directory: Path
    base: tuple[Path, ...]
    key: Key


def repository(distribution: Distribution, cache_dir: Path, console: Console) -> Repository:
    """Give a distribution's repositories, made now if they are not there."""
    with locked(cache_dir):
        place = lab_directory(cache_dir) / f"rpm-{fingerprint()}"
        if not (place / "complete").exists():
            _make(place, cache_dir, console)
    directory = place / distribution.id
    base = (directory / "base").read_text(encoding="utf-8").split()
    return Repository(distribution, directory, tuple(directory / name for name in base), Key(place / "key", "Lab"))


def lab_directory(cache_dir: Path) -> Path:
    """Give the directory in the cache that is the lab's."""
    return cache_dir / "lab"


@contextlib.contextmanager
def locked(cache_dir: Path) -> Iterator[None]:
    """Let one process at a time make something in the lab's directory."""
    lab_directory(cache_dir).mkdir(parents=True, exist_ok=True)
    with (lab_directory(cache_dir) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Hash what the repositories are made of, but for Debian's packages, which are those of the day."""
    files = [_HERE / name for name in _MAKERS]
    files += sorted(path for path in (_HERE / "files" / "redhat").rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _make(place: Path, cache_dir: Path, console: Console) -> None:
    shutil.rmtree(place, ignore_errors=True)
    key = Key(place / "key", "Lab")
    public = key.public.read_bytes()
    with tempfile.TemporaryDirectory(prefix="work-", dir=place) as directory:
        work = Path(directory)
        with console.step("make RPMs"):
            base = userns.run(lambda: _build_all(work, public, cache_dir, console))
        with console.step("sign and index"):
            for part in sorted((work / "rpms").iterdir()):
                key.sign_rpms(sorted(part.iterdir()))
            for distribution in DISTRIBUTIONS.values():
                _publish(work / "rpms", base[distribution.id], distribution, place / distribution.id)
    key.stop()
    (place / "complete").touch()


def _publish(rpms: Path, base: set[str], distribution: Distribution, target: Path) -> None:
    """Share the RPMs out among a distribution's repositories: Fedora has all in one, the others the system in one."""
    first, second = distribution.repositories
    for name in (first, second):
        (target / name).mkdir(parents=True)
    installed = []
    for path in [*(rpms / "common").iterdir(), *(rpms / distribution.id).iterdir()]:
        system = distribution.id == "fedora" or path.name in base or path.name.startswith("kernel")
        (target / (first if system else second) / path.name).hardlink_to(path)
        if path.name in base:
            installed.append(f"{first}/{path.name}")
    (target / "base").write_text("\n".join(sorted(installed)), encoding="utf-8")
    for name in (first, second):
        subprocess.run(["createrepo_c", "--quiet", target / name], check=True, capture_output=True)


def _build_all(work: Path, public: bytes, cache_dir: Path, console: Console) -> dict[str, set[str]]:
    """Build all RPMs, in a namespace; the file names of those in the cloud image, by distribution."""
    rpms, scratch = work / "rpms", work / "scratch"
    for directory in (rpms, scratch):
        directory.mkdir()
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > _TMPFS_BYTES:
        userns.mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
    try:
        return _build_in(scratch, rpms, public, cache_dir, console)
    finally:
        for path in scratch.iterdir():  # owners in there are of this namespace
            shutil.rmtree(path)


def _build_in(work: Path, rpms: Path, public: bytes, cache_dir: Path, console: Console) -> dict[str, set[str]]:
    tree, unpacked = work / "tree", work / "unpacked"
    rpm_source.bootstrap(tree, unpacked, cache_dir, work, console)
    rpm_source.adapt(tree)
    packages = rpm_source.packages(tree, ".lab")
    rpm_source.add_accounts(tree, packages)
    own = rpm_own.Maker(work / "own", ".lab")
    rpm_own.kernel(own, unpacked)
    rpm_own.grub(own, tree)
    rpm_own.selinux(own)
    _build(packages, tree, work / "debian", rpms / "common")
    _build(own.packages, own.own, work / "kernel", rpms / "common")
    found = {}
    base = [name for deb in rpm_source.NAMES["base"] if (name := rpm_source.rpm_name(deb))]
    for distribution in DISTRIBUTIONS.values():
        maker = rpm_own.Maker(work / f"own-{distribution.id}", distribution.dist)
        rpm_own.release(maker, distribution, public)
        rpm_own.boot_loader(maker, tree, unpacked, distribution)
        _build(maker.packages, maker.own, work / distribution.id, rpms / distribution.id)
        everything = [*packages, *own.packages, *maker.packages]
        wanted = [*base, *_BASE, *(package.name for package in maker.packages)]
        found[distribution.id] = _closure(everything, wanted)
    return found


#: What of rpm_own.py is in the cloud image.
_BASE = ("kernel-core", "grub2-pc", "selinux-policy-targeted", "dracut-config-generic")


def _build(packages: list[rpm_package.Package], tree: Path, work: Path, target: Path) -> None:
    work.mkdir()
    target.mkdir(exist_ok=True)
    rpm_package.build(packages, tree, work, target)


def _closure(packages: list[rpm_package.Package], wanted: list[str]) -> set[str]:
    """Give the files of the wanted packages and of all that they require."""
    by_name = {name: package for package in packages for name in (*package.provides, package.name)}
    found: dict[str, str] = {}
    queue = list(wanted)
    while queue:
        package = by_name[queue.pop()]
        if package.name not in found:
            arch = "noarch" if package.noarch else "x86_64"
            found[package.name] = f"{package.name}-{package.version}-{package.release}.{arch}.rpm"
            queue += package.requires
    return set(found.values())
