"""Mirrors that are dead, unsigned, signed by somebody else, or serve damaged packages: small archives on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from static_server import LOOPBACK, serving

from amphora_mkimage import cli, packages, request, settings


@dataclass(frozen=True)
class SmallArchive:
    """An archive in which every wanted package exists, each of them the same empty package file."""

    root: Path
    url: str
    keyring: Path
    other_keyring: Path


def gpg(home: Path, *arguments: object) -> None:
    subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--yes", "--passphrase", "", *map(str, arguments)],
        check=True,
        capture_output=True,
    )


def make_keyring(place: Path) -> Path:
    home = place / "gnupg"
    home.mkdir(parents=True, mode=0o700)
    gpg(home, "--quick-generate-key", f"{place.name} <test@example.invalid>", "ed25519", "sign", "1d")
    gpg(home, "--output", place / "keyring.gpg", "--export")
    return place / "keyring.gpg"


def wanted() -> list[str]:
    values = settings.resolve(vars(cli.build_parser().parse_args(["-i", "debian-minimal"])), {})
    return packages.wanted(request.make(values, {}, lambda text: None))


def write_indexes(root: Path, home: Path) -> None:
    content = root / "content"
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        "Package: empty\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: empty\n"
    )
    subprocess.run(["dpkg-deb", "--build", content, root / "empty.deb"], check=True, capture_output=True)
    deb = (root / "empty.deb").read_bytes()
    tail = f"Size: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n\n"
    index = ""
    for name in ["apt", *wanted()]:
        essential = "Essential: yes\n" if name == "apt" else ""
        (root / f"{name}.deb").hardlink_to(root / "empty.deb")
        index += f"Package: {name}\nVersion: 1\nArchitecture: all\n{essential}Maintainer: nobody\n"
        index += f"Filename: ./{name}.deb\n{tail}"
    for suite in ("trixie", "trixie-updates", "trixie-security"):
        place = root / "dists" / suite
        (place / "main/binary-amd64").mkdir(parents=True)
        (place / "main/binary-amd64/Packages").write_text(index if suite == "trixie" else "")
        fields = {"Suite": suite, "Codename": suite, "Components": "main", "Architectures": "amd64"}
        options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
        done = subprocess.run(
            ["apt-ftparchive", *options, "release", place], capture_output=True, text=True, check=True
        )
        (place / "Release").write_text(done.stdout)
        gpg(home, "--output", place / "InRelease", "--clearsign", place / "Release")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[SmallArchive]:
    root = tmp_path / "archive"
    root.mkdir()
    keyring, other = make_keyring(tmp_path / "ours"), make_keyring(tmp_path / "theirs")
    write_indexes(root, tmp_path / "ours/gnupg")
    try:
        with serving(root) as url:
            yield SmallArchive(root, url, keyring, other)
    finally:
        for name in ("ours", "theirs"):
            subprocess.run(["gpgconf", "--homedir", tmp_path / name / "gnupg", "--kill", "all"], check=False)


@pytest.fixture
def attempt(run_cli, tmp_path: Path):
    """Try a build that must fail; gives what it said."""

    def run(url: str, keyring: Path | None = None, agent: str = "--no-agent") -> str:
        output = tmp_path / "output"
        output.mkdir()
        env = {**LOOPBACK, "BASE_OS_MIRROR": url, **({"DIB_APT_KEYRING": str(keyring)} if keyring else {})}
        done = run_cli(
            "-i", "debian-minimal", agent, "-o", output / "a", "-w", output, "-c", tmp_path / "cache", env=env
        )
        assert done.returncode == 1, done.stderr
        assert list(output.iterdir()) == []
        assert "full log: " in done.stderr
        assert "Traceback" not in done.stderr
        assert list((tmp_path / "cache").rglob("*.deb")) == []
        return str(done.stderr)

    return run


def test_the_small_archive_is_good(archive: SmallArchive, run_cli, tmp_path: Path) -> None:
    """Otherwise the tests below could pass for a wrong reason."""
    done = run_cli(
        *("--dry-run", "-i", "debian-minimal", "-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache"),
        env={**LOOPBACK, "BASE_OS_MIRROR": archive.url, "DIB_APT_KEYRING": str(archive.keyring)},
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(wanted()) + 1} packages" in done.stdout


def test_dead(attempt) -> None:
    begin = time.monotonic()
    text = attempt("http://127.0.0.1:9/debian")
    assert "cannot read the package archive" in text
    assert "nothing answers there: correct BASE_OS_MIRROR" in text
    assert time.monotonic() - begin < 300  # bounded, not fast: retries are wanted


def test_not_an_archive(archive: SmallArchive, attempt) -> None:
    text = attempt(f"{archive.url}/nothing-here", archive.keyring)
    assert "cannot read the package archive" in text
    assert "BASE_OS_MIRROR" in text


def test_unsigned(archive: SmallArchive, attempt) -> None:
    for file in archive.root.rglob("InRelease"):
        file.unlink()
    text = attempt(archive.url, archive.keyring)
    assert "is not signed" in text
    assert "not signed by the expected key" in text


def test_one_suite_unsigned(archive: SmallArchive, attempt) -> None:
    (archive.root / "dists/trixie-security/InRelease").unlink()
    text = attempt(archive.url, archive.keyring)
    assert "trixie-security" in text
    assert "not signed by the expected key" in text


def test_signed_by_another_key(archive: SmallArchive, attempt) -> None:
    text = attempt(archive.url, archive.other_keyring)
    assert "not signed by the expected key" in text


def test_not_signed_by_the_distribution(archive: SmallArchive, attempt) -> None:
    text = attempt(archive.url)
    assert "not signed by the expected key" in text


def test_a_changed_index(archive: SmallArchive, attempt) -> None:
    index = archive.root / "dists/trixie/main/binary-amd64/Packages"
    index.write_text(index.read_text().replace("Version: 1", "Version: 2", 1))
    text = attempt(archive.url, archive.keyring)
    assert "damaged files" in text


@pytest.mark.parametrize("change", ["truncated", "changed"])
def test_a_damaged_package(change: str, archive: SmallArchive, attempt) -> None:
    deb = archive.root / "empty.deb"
    content = deb.read_bytes()
    # In place: every package is a hard link to it.
    deb.write_bytes(content[:-10] if change == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    text = attempt(archive.url, archive.keyring)
    assert "cannot fetch the packages" in text
    assert "damaged files" in text


def test_a_distribution_without_a_package_of_the_agent(archive: SmallArchive, attempt) -> None:
    text = attempt(archive.url, archive.keyring, "-p")
    assert "Unable to locate package octavia-agent" in text
    assert "leave -p out" in text


def test_credentials_are_not_repeated(archive: SmallArchive, attempt, tmp_path: Path) -> None:
    for file in archive.root.rglob("InRelease"):
        file.unlink()
    text = attempt(archive.url.replace("//", "//user:Hunter2secret@"), archive.keyring)
    assert "Hunter2" not in text
    for log in tmp_path.rglob("*.log"):
        assert b"Hunter2" not in log.read_bytes()
    assert os.path.lexists(next(tmp_path.rglob("*.log")))
