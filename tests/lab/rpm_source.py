"""A Debian system, and its files shared out among RPM packages that are called as Red Hat's.

The packages are bootstrapped and configured by Debian's own tools first, in one tree; what their scripts made is then
in the tree, too, and goes to the package that it belongs to. So the RPMs need next to no scripts of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpm_package import Package, matches

from amphora_mkimage import process
from amphora_mkimage.bases import BASES, mirror
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.bases.bootstrap import HOOKS
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store

RELEASE = "trixie"
FILES = Path(__file__).with_name("files") / "redhat"
NAMES: dict[str, Any] = tomllib.loads((Path(__file__).with_name("rpm_names.toml")).read_text(encoding="utf-8"))
#: Directories whose content is the machine's, not a package's.
_TRANSIENT = (
    "/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log", "/var/tmp",
)  # fmt: skip
_MERGED = re.compile(r"/(bin|sbin|lib|lib64)/")


@dataclass(frozen=True)
class Deb:
    """What dpkg knows about one package."""

    name: str
    version: str
    noarch: bool
    summary: str
    depends: tuple[tuple[str, ...], ...]  #: alternatives
    recommends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    files: tuple[str, ...]
    config: frozenset[str]


def bootstrap(tree: Path, unpacked: Path, cache_dir: Path, work: Path, console: Console) -> None:
    """Bootstrap all packages into ``tree``, and unpack kernel and shim into ``unpacked``; both must not exist."""
    base = BASES["debian-minimal"]
    chosen = mirror.choose(base, RELEASE, "")
    sources = chosen.sources(base, RELEASE, base.keyring)
    archive = Archive(work / "apt", "amd64", sources, mirror.apt_network_settings(os.environ), chosen.logins, console)
    archive.update()
    wanted = [*NAMES["base"], *NAMES["extra"]]
    debs = archive.resolve(["?essential", "apt", *wanted, *NAMES["unpacked"]])
    store = Store(cache_dir, console.warn)
    store.prepare()
    new = [deb for deb in debs if not store.take_deb(deb.sha256, archive.archives / deb.file_name)]
    if new:
        archive.download(debs)
    for deb in new:
        store.put_deb(deb.sha256, archive.archives / deb.file_name)
    for deb in debs:
        if re.match(r"linux-image-\d|shim-", deb.name):
            unpack = ["dpkg-deb", "-x", str(archive.archives / deb.file_name), str(unpacked)]
            process.run(unpack, console, what="cannot unpack")
    options = [f"path-exclude=/usr/share/{name}/*" for name in ("man", "info", "lintian", "doc")]
    options += ["path-include=/usr/share/doc/*/copyright"]
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", "--skip=update"]
    argv += [f"--dpkgopt={option}" for option in options]
    argv += [f"--include={','.join(wanted)}", f'--setup-hook={HOOKS}/bootstrap/setup00-archive "$1"']
    argv += [RELEASE, os.fspath(tree), os.fspath(archive.directory / "sources.list")]
    env = process.environment({"TMPDIR": os.fspath(work), "AMPHORA_APT": os.fspath(archive.directory)})
    process.run(argv, console, what="cannot bootstrap the lab's Debian", env=env)


def packages(tree: Path, dist: str) -> list[Package]:
    """Share a bootstrapped tree out.

    :param dist: what ends each release (".fc44")
    """
    debs = list(_dpkg(tree))
    installed = {deb.name for deb in debs}
    providers = {virtual: deb.name for deb in debs for virtual in deb.provides if virtual not in installed}
    found: dict[str, Package] = {}
    owners: dict[str, str] = {}
    for deb in debs:
        name = rpm_name(deb.name)
        kept = [path for path in deb.files if _wanted(tree, path)]
        if name is None:
            owners |= dict.fromkeys(kept, "")
            continue
        package = found.setdefault(name, Package(name, noarch=True))
        if deb.name == name or package.version == "1":
            package.version, package.release = _version(deb.version, dist)
            package.summary = deb.summary
        package.noarch = package.noarch and deb.noarch
        package.files.update(kept)
        package.config |= deb.config
        owners |= {path: name for path in kept if not _is_directory(tree, path)}
        package.requires |= set(_resolved(deb.depends, installed, providers)) - {name}
        package.recommends |= set(_resolved(deb.recommends, installed, providers)) - {name}
    _leftovers(tree, found, owners, dist)
    found["bash"].files.add("/usr/bin/sh")  # which is dash's in Debian
    found["filesystem"].requires = set()
    found["filesystem"].requires_first.add("setup")  # the accounts that files belong to
    found["bash"].provides |= {"/bin/sh", "/bin/bash"}
    found["glibc"].scriptlets["transfiletriggerin -- /usr/lib"] = "/usr/sbin/ldconfig\n"  # as the real one has it
    found["systemd"].requires_first.add("system-release")  # which has the presets that its script applies
    found["systemd"].requires.add("system-release")
    found["systemd"].scriptlets["post"] = (FILES / "post-systemd.sh").read_text(encoding="utf-8")
    for package in found.values():
        if package.name not in ("filesystem", "setup"):
            package.requires_first.add("filesystem")
            package.requires.add("filesystem")
        package.recommends -= package.requires
        _add_units(tree, package)
    return list(found.values())


def rpm_name(deb: str) -> str | None:
    """Give the name that a package of Debian's has as an RPM, None when it does not become one."""
    return None if deb in NAMES["left_out"] else NAMES["names"].get(deb, deb)


def _version(version: str, dist: str) -> tuple[str, str]:
    """Split Debian's version into RPM's two fields, without an epoch, in the characters that RPM has."""
    upstream, _, revision = version.rpartition(":")[2].rpartition("-")
    if not upstream:
        upstream, revision = revision, "1"
    clean = [re.sub(r"[^A-Za-z0-9._+~]", "_", part) for part in (upstream, revision)]
    return clean[0], f"{clean[1]}{dist}"


def _dpkg(tree: Path) -> Iterator[Deb]:
    info = tree / "var/lib/dpkg/info"
    for stanza in (tree / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): ?(.*(?:\n .*)*)", stanza, re.MULTILINE))
        if "Package" not in fields:
            continue
        name = fields["Package"]
        stem = next(s for s in (name, f"{name}:{fields['Architecture']}") if (info / f"{s}.list").exists())
        files = (info / f"{stem}.list").read_text(encoding="utf-8").splitlines()
        conffiles = (line.split()[0] for line in fields.get("Conffiles", "").splitlines() if line.strip())
        yield Deb(
            name,
            fields["Version"],
            fields["Architecture"] == "all",
            fields["Description"].splitlines()[0],
            _relation(fields, "Depends") + _relation(fields, "Pre-Depends"),
            _relation(fields, "Recommends"),
            tuple(alternatives[0] for alternatives in _relation(fields, "Provides")),
            tuple(_place(path) for path in files),
            frozenset(conffiles),
        )


def _place(path: str) -> str:
    """Give the place that a path of a Debian package has in an RPM: /usr is merged, some files have other names."""
    path = _MERGED.sub(r"/usr/\1/", path, count=1) if _MERGED.match(path) else path
    return str(NAMES["renamed"].get(path, path))


def _relation(fields: dict[str, str], field: str) -> tuple[tuple[str, ...], ...]:
    parts = [part for part in fields.get(field, "").replace("\n", " ").split(",") if part.strip()]
    return tuple(tuple(re.split(r"[ (:]", choice.strip())[0] for choice in part.split("|")) for part in parts)


def _resolved(relations: tuple[tuple[str, ...], ...], installed: set[str], providers: dict[str, str]) -> Iterator[str]:
    """Name the RPMs that satisfy a relation here; what was left out satisfies it as well."""
    for alternatives in relations:
        present = [providers.get(name, name) for name in alternatives]
        for name in present:
            if name in installed:
                if (rpm := rpm_name(name)) is not None:
                    yield rpm
                break


def _wanted(tree: Path, path: str) -> bool:
    if path in ("/.", "/bin", "/sbin", "/lib", "/lib64") or matches(path, NAMES["left_out_paths"]):
        return False
    return os.path.lexists(tree / path.lstrip("/"))


def _is_directory(tree: Path, path: str) -> bool:
    whole = tree / path.lstrip("/")
    return whole.is_dir() and not whole.is_symlink()


def _leftovers(tree: Path, found: dict[str, Package], owners: dict[str, str], dist: str) -> None:
    """Give every file that no package lists to one."""
    setup = found.setdefault("setup", Package("setup", "2.15.0", f"1{dist}", "A set of system configuration files"))
    filesystem = found["filesystem"]
    owned = set(owners) | {path for package in found.values() for path in package.files}
    for directory, directories, files in os.walk(tree):
        here = "/" + os.path.relpath(directory, tree).lstrip(".")
        directories[:] = [name for name in directories if _join(here, name) not in _TRANSIENT]
        for name in [*directories, *files]:
            path = _join(here, name)
            if path in owned or not _wanted(tree, path):
                continue
            if _is_directory(tree, path):
                filesystem.files.add(path)
            else:
                owner = _owner(tree, path, owners)
                if owner:
                    found.get(owner, setup).files.add(path)
    filesystem.files |= {"/bin", "/sbin", "/lib", "/lib64", *_TRANSIENT[:5], "/var/cache", "/var/log", "/var/tmp"}
    setup.config |= {path for path in setup.files if path.startswith("/etc/")}
    setup.noarch = filesystem.noarch = True


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _owner(tree: Path, path: str, owners: dict[str, str]) -> str:
    """Name the package of a file that scripts made; "" when it goes."""
    source = re.sub(r"__pycache__/([^/]+)\.cpython-\d+(\.opt-\d)?\.pyc$", r"\1.py", path)
    if source != path:
        return owners.get(source, "")
    target = _resolve(tree, path)
    if target in owners and target != path:  # a link of update-alternatives(1) or systemctl(1)
        return owners[target]
    for pattern, package in NAMES["leftovers"].items():
        if matches(path, [pattern]):
            return str(package)
    return "setup"


def _resolve(tree: Path, path: str) -> str:
    """Follow links inside the tree."""
    for _ in range(10):
        whole = tree / path.lstrip("/")
        if not whole.is_symlink():
            break
        path = _place(os.path.normpath(Path(path).parent / whole.readlink()))
    return path


def requires(tree: Path, *debs: str) -> set[str]:
    """Name the RPMs that some of Debian's packages need."""
    known = list(_dpkg(tree))
    installed = {deb.name for deb in known}
    return {name for deb in known if deb.name in debs for name in _resolved(deb.depends, installed, {})}


def adapt(tree: Path) -> None:
    """Change a few files of a bootstrapped tree into what a Red Hat system has in their place."""
    for old, new in NAMES["renamed"].items():
        (tree / old.lstrip("/")).rename(tree / new.lstrip("/"))
    (tree / "usr/bin/sh").unlink()
    (tree / "usr/bin/sh").symlink_to("bash")
    replaced = {
        "usr/lib/kernel/install.d/50-dracut.install": "50-dracut.install",
        "usr/lib/rpm/macros.d/macros.dbpath": "macros.dbpath",
        "etc/dnf/dnf.conf": "dnf.conf",
        "etc/NetworkManager/NetworkManager.conf": "NetworkManager.conf",
    }
    for path, file in replaced.items():
        shutil.copy(FILES / file, tree / path)
    (tree / "usr/lib/kernel/install.d/50-dracut.install").chmod(0o755)
    (tree / "usr/lib/kernel/install.d/51-dracut-rescue.install").unlink()
    cloud = tree / "etc/cloud/cloud.cfg"
    cloud.write_text(re.sub(r"distro: debian", "distro: fedora", cloud.read_text()), encoding="utf-8")
    # cloud-init's units differ with the distribution that they are built for.
    network = tree / "usr/lib/systemd/system/cloud-init-network.service"
    early = r"^(DefaultDependencies=no|Before=sysinit.target|After=systemd-networkd.*)\n"
    text = re.sub(early, "", network.read_text(), flags=re.MULTILINE)
    services = "After=NetworkManager.service\nAfter=NetworkManager-wait-online.service\n"
    network.write_text(text.replace("After=networking.service\n", services), encoding="utf-8")


def _add_units(tree: Path, package: Package) -> None:
    """Let presets decide about the units that can be enabled, as the %systemd_post macro does."""
    units = [
        path.rpartition("/")[2]
        for path in package.files
        if re.match(r"/usr/lib/systemd/system/[^/@]+\.(service|socket|timer)$", path)
        and not (tree / path.lstrip("/")).is_symlink()
        and "[Install]" in (tree / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
    ]
    if units and package.name != "systemd":
        script = (FILES / "post-units.sh").read_text(encoding="utf-8")
        package.scriptlets["post"] = script.replace("@UNITS@", " ".join(sorted(units)))


def add_accounts(tree: Path, found: list[Package]) -> None:
    """Take some accounts out of the tree's files, and let the package make them."""
    by_name = {package.name: package for package in found}
    template = (FILES / "pre-account.sh").read_text(encoding="utf-8")
    for account, name in NAMES["accounts"].items():
        by_name[name].scriptlets["pre"] = template.replace("@ACCOUNT@", account)
        by_name[name].requires_first |= {"shadow-utils"}
        by_name[name].requires |= {"shadow-utils"}
    names = "|".join(NAMES["accounts"])
    for file in ("passwd", "shadow", "group", "gshadow"):
        path = tree / "etc" / file
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(rf"^(?:{names}):.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
        os.chown(path, 0, 0)  # shadow's group would be made by the package that this file is in
