"""RPM packages from a directory tree: one spec file, many subpackages, one run of rpmbuild(1)."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: rpmbuild takes a finished tree: it must neither empty it, nor strip, check or look for dependencies in it. Debian's
#: libraries have other names than those that rpm's generators would ask for.
_HEADER = """\
Name: {name}
Version: 1
Release: 1
Summary: Stand-in packages
License: various
AutoReqProv: no
%global __spec_install_pre %{{nil}}
%global __os_install_post %{{nil}}
%global __check_files %{{nil}}
%global _build_id_links none
%global debug_package %{{nil}}
%global _binary_payload w1.zstdio
%description
Made from Debian's packages for tests.
%install
:
%clean
:
"""


@dataclass
class Package:
    """One RPM to be.

    :param files: absolute paths in the tree, directories included
    :param config: those of them that are configuration
    :param scriptlets: shell text by section ("pre", "post", "posttrans", "transfiletriggerin -- /usr/lib")
    :param requires: names; those in ``requires_first`` must be installed before
    """

    name: str
    version: str = "1"
    release: str = "1"
    summary: str = "Stand-in"
    noarch: bool = False
    files: set[str] = field(default_factory=set)
    config: set[str] = field(default_factory=set)
    requires: set[str] = field(default_factory=set)
    requires_first: set[str] = field(default_factory=set)
    recommends: set[str] = field(default_factory=set)
    provides: set[str] = field(default_factory=set)
    scriptlets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Accounts:
    """Names of a tree's users and groups, by number."""

    users: Mapping[int, str]
    groups: Mapping[int, str]

    @classmethod
    def of(cls, tree: Path) -> Accounts:
        """Read them."""

        def names(file: str) -> dict[int, str]:
            path = tree / "etc" / file
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            return {int(line.split(":")[2]): line.split(":")[0] for line in lines if line.count(":") > 2}

        return cls(names("passwd"), names("group"))


def build(packages: Iterable[Package], tree: Path, work: Path, target: Path) -> None:
    """Build RPMs from a tree whose files they share out.

    :param work: an empty directory
    :param target: where the RPMs go
    """
    accounts = Accounts.of(tree)
    capabilities = _capabilities(tree)
    text = _HEADER.format(name=f"stand-in-{work.name}")
    for package in packages:
        file_list = work / f"{package.name}.files"
        lines = sorted(_file_line(tree, path, package, accounts, capabilities) for path in package.files)
        file_list.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        text += _section(package, file_list)
    spec = work / "packages.spec"
    spec.write_text(text, encoding="utf-8")
    settings = {"_topdir": work, "_rpmdir": target, "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"}
    defines = [part for name, value in settings.items() for part in ("--define", f"{name} {value}")]
    log = work / "rpmbuild.log"
    with log.open("w") as output:
        argv = ["rpmbuild", "-bb", "--nodeps", *defines, "--buildroot", os.fspath(tree), os.fspath(spec)]
        done = subprocess.run(argv, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError("rpmbuild failed:\n" + "\n".join(log.read_text().splitlines()[-20:]))


def _section(package: Package, file_list: Path) -> str:
    lines = [
        f"%package -n {package.name}",
        f"Version: {package.version}",
        f"Release: {package.release}",
        f"Summary: {package.summary}",
        "AutoReqProv: no",
    ]
    lines += ["BuildArch: noarch"] if package.noarch else []
    lines += [f"Requires: {name}" for name in sorted(package.requires - package.requires_first)]
    lines += [f"Requires(pre): {name}" for name in sorted(package.requires_first)]
    lines += [f"Recommends: {name}" for name in sorted(package.recommends)]
    lines += [f"Provides: {name}" for name in sorted(package.provides)]
    lines += [f"%description -n {package.name}", "Made from Debian's packages for tests."]
    for section, script in package.scriptlets.items():
        kind, _, paths = section.partition(" ")
        lines += [f"%{kind} -n {package.name} {paths}".rstrip(), script.replace("%", "%%")]
    # rpmbuild takes an empty list for a mistake, but a package of dependencies has no files.
    lines.append(f"%files -n {package.name}" + (f" -f {file_list}" if package.files else ""))
    lines.append("%defattr(-,root,root,-)")
    return "\n".join(lines) + "\n"


def _file_line(tree: Path, path: str, package: Package, accounts: Accounts, capabilities: Mapping[str, str]) -> str:
    status = (tree / path.lstrip("/")).lstat()
    words = []
    user, group = accounts.users.get(status.st_uid, "root"), accounts.groups.get(status.st_gid, "root")
    if (user, group) != ("root", "root") or status.st_mode & 0o7000:
        mode = "-" if stat.S_ISLNK(status.st_mode) else f"{stat.S_IMODE(status.st_mode):o}"
        words.append(f"%attr({mode},{user},{group})")
    if path in capabilities:
        words.append(f"%caps({capabilities[path]})")
    if stat.S_ISDIR(status.st_mode):
        words.append("%dir")
    elif path in package.config and stat.S_ISREG(status.st_mode):
        words.append("%config(noreplace)")
    elif match := re.match(r"/usr/share/locale/([^/]+)/", path):
        words.append(f"%lang({match[1].split('@')[0]})")
    return " ".join([*words, '"' + path.replace("%", "%%") + '"'])


def _capabilities(tree: Path) -> dict[str, str]:
    output = subprocess.run(["getcap", "-r", tree], capture_output=True, text=True, check=True).stdout
    pairs = (line.rsplit(" ", 1) for line in output.splitlines())
    return {path.removeprefix(os.fspath(tree)): value for path, value in pairs}


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Tell whether any of some shell patterns matches a path."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
