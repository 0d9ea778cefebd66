"""Where the two sides come from: octavia from the package index, HAProxy from Debian's archive."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from haproxy_check import HAProxy, in_tree

from amphora_mkimage.bases import mirror
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.bases.base import Release
from amphora_mkimage.bases.debian import DEBIAN_MINIMAL
from amphora_mkimage.console import Console
from amphora_mkimage.controllers import HAProxy as Tried

#: Debian's releases whose HAProxy is tried; sid has no suites beside it.
SUITES = {
    "bookworm": Release("bookworm", ("{}", "{}-updates", "{}-security")),
    "trixie": Release("trixie", ("{}", "{}-updates", "{}-security")),
    "sid": Release("sid", ("{}",)),
}


def octavia(version: str, place: Path) -> Path:
    """Return a directory that has a release of octavia and nothing else; from the cache, or fetched by pip.

    :param place: of the cache
    """
    directory = place / f"octavia-{version}"
    if not directory.exists():
        fresh = place / f".octavia-{version}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        # It is only read as files by a Python for which all releases are right.
        argv += ["--only-binary=:all:", "--ignore-requires-python", f"--dest={fresh}", f"octavia=={version}"]
        subprocess.run(argv, check=True)
        (wheel,) = fresh.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        wheel.unlink()
        fresh.rename(directory)
    return directory


def debian(suite: str, directory: Path) -> tuple[HAProxy, Tried]:
    """Return Debian's newest HAProxy of a release, unpacked with all that it needs, and what the table calls it.

    :param directory: made
    """
    base = dataclasses.replace(DEBIAN_MINIMAL, releases=SUITES)
    chosen = mirror.choose(base, suite, "")
    sources = chosen.sources(base, suite, base.keyring)
    network = mirror.apt_network_settings(os.environ)
    # A mirror that somebody keeps still has sid as it was; it is signed all the same.
    network += 'Acquire::Check-Valid-Until "false";\n' if suite == "sid" else ""
    archive = Archive(directory / "apt", "amd64", sources, network, chosen.logins, Console(io.StringIO()))
    archive.update()
    debs = archive.resolve(["haproxy"])
    archive.download(debs)
    tree = directory / "tree"
    for deb in debs:
        subprocess.run(["dpkg", "--extract", archive.archives / deb.file_name, tree], check=True)
    shutil.rmtree(directory / "apt")
    haproxy = in_tree(tree)
    package = next(deb.version for deb in debs if deb.name == "haproxy")
    return haproxy, Tried(".".join(haproxy.version.split(".")[:2]), package, "debian", suite)
