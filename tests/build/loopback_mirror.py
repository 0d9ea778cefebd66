"""A signed mirror on loopback that has Debian's own packages for one image, from the release's main suite.

Mirrors fall behind for the smaller architectures, in the security suite above all; a build that met one would rightly
fail. A point release is complete everywhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import static_server
from test_mirror_faults import gpg, make_keyring

from amphora_mkimage import cli, packages, request, settings
from amphora_mkimage.bases import mirror
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store


@dataclass(frozen=True)
class Mirror:
    """Where it is, and what signs it."""

    url: str
    keyring: Path

    @property
    def variables(self) -> dict[str, str]:
        """What makes a build use it."""
        return {"BASE_OS_MIRROR": self.url, "DIB_APT_KEYRING": str(self.keyring), "no_proxy": "127.0.0.1"}


def fill(root: Path, wish: request.Request, cache_dir: Path) -> None:
    """Fetch the packages of an image, verified by Debian's own signature, or take them from the cache."""
    there = mirror.choose(wish.base, wish.release, "", wish.arch)
    sources = there.sources(wish.base, wish.release, wish.keyring).splitlines(keepends=True)[:1]
    network = mirror.apt_network_settings(os.environ)
    archive = Archive(root / "apt", wish.arch, "".join(sources), network, there.logins, Console(io.StringIO()))
    archive.update()
    debs = archive.resolve(["?essential", "apt", *packages.wanted(wish)])
    store = Store(cache_dir, print)
    store.prepare()
    missing = [deb for deb in debs if not store.take_deb(deb.sha256, archive.archives / deb.file_name)]
    if missing:
        archive.download(debs)
    pool = root / "pool"
    pool.mkdir()
    for deb in debs:
        (archive.archives / deb.file_name).rename(pool / deb.file_name)
    for deb in missing:
        store.put_deb(deb.sha256, pool / deb.file_name)


def write_indexes(root: Path, wish: request.Request, home: Path) -> None:
    """Describe the packages in the main suite, leave the others empty, and sign all."""
    argv = ["apt-ftparchive", f"-oAPT::FTPArchive::Architecture={wish.arch}", "packages", "pool"]
    index = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True).stdout
    for number, pattern in enumerate(wish.base.releases[wish.release].suites):
        suite = pattern.format(wish.release)
        place = root / "dists" / suite
        (place / f"main/binary-{wish.arch}").mkdir(parents=True)
        (place / f"main/binary-{wish.arch}/Packages").write_text("" if number else index)
        fields = {"Suite": suite, "Codename": suite, "Components": "main", "Architectures": wish.arch}
        options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
        argv = ["apt-ftparchive", *options, "release", str(place)]
        (place / "Release").write_text(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        gpg(home, "--output", place / "InRelease", "--clearsign", place / "Release")


@contextlib.contextmanager
def serving(place: Path, cache_dir: Path, *argv: str) -> Iterator[Mirror]:
    """Make the mirror for a command line, and serve it.

    :param place: an empty directory
    """
    values = settings.resolve(vars(cli.build_parser().parse_args([*argv, "-o", str(place / "unused")])), {})
    wish = request.make(values, {}, lambda text: None)
    root = place / "archive"
    root.mkdir()
    keyring = make_keyring(place / "key")
    fill(root, wish, cache_dir)
    write_indexes(root, wish, place / "key/gnupg")
    try:
        with static_server.serving(root) as url:
            yield Mirror(url, keyring)
    finally:
        subprocess.run(["gpgconf", "--homedir", place / "key/gnupg", "--kill", "all"], check=False)
