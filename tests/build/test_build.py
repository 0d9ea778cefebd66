"""What a build leaves: images that other programs accept, and nothing of the host in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest
from image_files import info, root_field, tar_file, tar_members
from oslo_utils.imageutils import format_inspector

from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, formats, layout
from amphora_mkimage.guest import userns

GIB = 1 << 30
PASSWORD = "correct-horse-4711-battery"


@pytest.fixture(scope="module")
def members(built) -> dict[str, tarfile.TarInfo]:
    return tar_members(built.tar)


# -- qcow2 -----------------------------------------------------------------------------------------------------------


def test_qcow2(built) -> None:
    found = info(built.qcow2, "qcow2")
    assert found["virtual-size"] == 5 * GIB
    assert "backing-filename" not in found
    details = found["format-specific"]["data"]
    assert details["compression-type"] == "zstd"
    assert not details.get("data-file")
    assert details["extended-l2"] is False
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", built.qcow2], check=True)


def test_nova_and_glance_accept_it(built) -> None:
    """Their own inspector, fed as they feed it: in chunks of an upload."""
    inspector = format_inspector.detect_file_format(str(built.qcow2))
    assert str(inspector) == "qcow2"
    inspector.safety_check()
    assert inspector.virtual_size == 5 * GIB


def test_manifest(built) -> None:
    found = json.loads(built.manifest.read_text())
    assert found["image"]["sha256"] == hashlib.sha256(built.qcow2.read_bytes()).hexdigest()
    assert found["image"]["bytes"] == built.qcow2.stat().st_size
    assert found["image"]["virtual_size"] == 5 * GIB
    assert found["image"]["min_disk"] == 5
    assert "min_disk" not in json.loads(built.tar_manifest.read_text())["image"]
    assert found["settings"]["base_os"] == "debian-minimal"
    assert found["tool"]["name"] == "amphora-mkimage"
    assert found["timings"]["configure"] > 0
    packages = {package["name"]: package["version"] for package in found["packages"]}
    assert packages.keys() >= {"haproxy", "keepalived", "ipvsadm", "dpkg", "openssh-server"}
    assert all(packages.values())
    assert [s for s in found["base"]["suites"] if s.endswith("-security")]
    assert json.loads(built.tar_manifest.read_text())["packages"] == found["packages"]


def test_the_packages_of_the_manifest_are_those_that_dpkg_knows(built, tmp_path: Path) -> None:
    (tmp_path / "status").write_text(tar_file(built.tar, "var/lib/dpkg/status"))
    (tmp_path / "info").mkdir()
    done = subprocess.run(
        ["dpkg-query", f"--admindir={tmp_path}", "--show", "--showformat=${Package} ${Version} ${Architecture}\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = json.loads(built.manifest.read_text())["packages"]
    assert sorted(done.stdout.splitlines()) == sorted(f"{p['name']} {p['version']} {p['arch']}" for p in packages)


def test_what_json_says_of_a_build(built) -> None:
    """One object on standard output, and nothing else."""
    assert {key: built.report[key] for key in ("status", "warnings")} == {"status": 0, "warnings": []}
    for image, path in zip(built.report["images"], (built.qcow2, built.tar), strict=True):
        assert image["path"] == str(path)
        assert image["format"] == path.suffix[1:]
        assert image["bytes"] == path.stat().st_size
        assert image["sha256"] == hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        assert json.loads(Path(image["manifest"]).read_text())["image"]["sha256"] == image["sha256"]
    assert built.report["images"][0]["virtual_size"] == 5 << 30


def test_sums(built) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=built.qcow2.parent, check=True)


def test_nothing_else_is_left(built) -> None:
    expected = {path.name for path in (built.qcow2, built.tar, built.manifest, built.tar_manifest, built.log)}
    assert {path.name for path in built.qcow2.parent.iterdir()} == expected | {"SHA256SUMS"}


# -- tar -------------------------------------------------------------------------------------------------------------


def test_owners_are_numbers(members: dict[str, tarfile.TarInfo]) -> None:
    assert {member.uname for member in members.values()} <= {""}
    assert members["etc/shadow"].gid == 42
    assert members["usr/bin/passwd"].uid == 0
    assert {member.uid for member in members.values()} - {0}  # not all root's
    assert {member.gid for member in members.values()} >= {0, 42}
    assert max(member.uid for member in members.values()) < 65536


def test_setuid_bits(members: dict[str, tarfile.TarInfo]) -> None:
    assert members["usr/bin/passwd"].mode == 0o4755
    assert members["usr/bin/sudo"].mode == 0o4755
    assert members["tmp"].mode == 0o1777


def test_extended_attributes(members: dict[str, tarfile.TarInfo]) -> None:
    """systemd's package sets access lists on the journal's directory."""
    assert "SCHILY.xattr.system.posix_acl_default" in members["var/log/journal"].pax_headers


@pytest.mark.parametrize("tmpfs", [True, False], ids=["tmpfs", "disk"])
def test_file_capabilities(tmpfs: bool, tmp_path: Path) -> None:
    """A namespace on disk stores them with its root's id (revision 3, capabilities(7)); an image needs revision 2."""

    def work() -> tuple[bytes, bytes]:
        place = tmp_path
        if tmpfs:
            userns.mount("tmpfs", place, "tmpfs")
        tree = place / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "bin/ping").write_bytes(b"x")
        subprocess.run(["/sbin/setcap", "cap_net_raw+ep", tree / "bin/ping"], check=True)
        with (place / "tar").open("wb") as file:
            formats.archive(tree, file.fileno(), Console())
        with tarfile.open(place / "tar") as tar:
            headers = tar.getmember("./bin/ping").pax_headers
        disk = place / "disk"
        with disk.open("wb") as file:
            file.truncate(64 << 20)
        filesystems.make_root(tree, disk, layout.Extent(0, 64 << 20), str(uuid.uuid4()), Console())
        shown = subprocess.run(
            ["/sbin/debugfs", "-R", "ea_get -x /bin/ping security.capability", disk], capture_output=True, check=True
        )
        return headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape"), shown.stdout

    in_tar, in_ext4 = userns.run(work)
    magic, permitted, inheritable = struct.unpack_from("<III", in_tar)
    assert magic >> 24 == 2
    assert permitted == 1 << 13  # CAP_NET_RAW
    assert inheritable == 0
    assert in_tar.hex(" ").encode() in in_ext4.replace(b"\n", b" ")


def test_places_of_the_kernel_are_empty(members: dict[str, tarfile.TarInfo]) -> None:
    for name in ("proc", "sys", "dev", "run"):
        assert members[name].isdir()
        assert [other for other in members if other.startswith(f"{name}/")] == []


def test_the_tar_runs_as_a_container(built, tmp_path: Path) -> None:
    def enter() -> str:
        userns.mount("tmpfs", tmp_path, "tmpfs")
        subprocess.run(["tar", "--extract", "--xattrs", f"--file={built.tar}", f"--directory={tmp_path}"], check=True)
        argv = ["chroot", str(tmp_path), "/usr/sbin/haproxy", "-v"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert userns.run(enter).startswith("HAProxy version")


# -- leaks -----------------------------------------------------------------------------------------------------------


def test_nothing_unique_is_in_the_image(built, members: dict[str, tarfile.TarInfo]) -> None:
    assert members["etc/machine-id"].size == 0
    assert members["etc/resolv.conf"].isreg()
    for pattern in (
        r"etc/ssh/ssh_host_.*",
        r"var/lib/apt/lists/.+",
        r"var/cache/apt/.*\.(bin|deb)",
        r"var/lib/cloud/.+",
        r"var/lib/systemd/random-seed",
        r"var/lib/dbus/machine-id",
        r"root/\.(bash_history|cache.*)",
        r"tmp/.+",
        r"var/tmp/.+",
        r"etc/apt/auth\.conf(\.d/.+)?",
        r"etc/apt/apt\.conf\.d/.*(proxy|mmdebstrap).*",
        r".*\.dpkg-(old|new|tmp)",
        r"usr/share/man/man.*/.+",
    ):
        assert [name for name, member in members.items() if re.fullmatch(pattern, name) and not member.isdir()] == []
    assert [n for n, m in members.items() if n.startswith("var/log/") and m.isreg() and m.size] == []


def test_nothing_of_the_host_is_in_the_image(built) -> None:
    host = socket.gethostname()
    words = {os.environ[name] for name in os.environ if name.lower() in ("http_proxy", "https_proxy")}
    words |= {str(built.qcow2.parent), *({host} if len(host) > 6 else ())}
    with tarfile.open(built.tar) as tar:
        for member in tar:
            if member.isreg() and member.name.startswith(("./etc/", "./var/", "./root/", "./boot/grub/")):
                content = tar.extractfile(member)
                assert content is not None
                text = content.read()
                for word in words:
                    assert word.encode() not in text, (member.name, word)
    resolver = tar_file(built.tar, "etc/resolv.conf")
    assert resolver != Path("/etc/resolv.conf").read_text()
    assert "amphora" in tar_file(built.tar, "etc/hostname")


def test_root_is_locked_unless_asked(built) -> None:
    assert root_field(built.tar) == "*"


# -- a second build: other types, a password, from the cache ---------------------------------------------------------


def test_dry_run_prints_the_plan_and_does_nothing(built, run_cli, cache_dir: Path, tmp_path: Path) -> None:
    done = run_cli(
        "--dry-run", "-i", "debian-minimal", "-t", "qcow2,tar", "-o", tmp_path / "a", "-w", tmp_path / "w",
        "-c", cache_dir, "-r", PASSWORD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("debian-minimal trixie amd64", "bootstrapped base is cached", "haproxy", "sysctl:", "size_gib: 5"):
        assert word in done.stdout
    assert f"{tmp_path}/a.qcow2\n" in done.stdout and f"{tmp_path}/a.tar\n" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert "$y$" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_too_small_is_refused_before_the_bootstrap(run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """A kernel's debugging symbols are several GiB; they are neither fetched nor unpacked."""
    done = run_cli(
        *("-i", "debian-minimal", "-s", "1", "-k", "linux-image-amd64-dbg", "-o", tmp_path / "a"),
        *("-w", tmp_path, "-c", cache_dir),
    )
    assert done.returncode == 3, done.stderr
    assert "-s: 1 GiB are too small" in done.stderr
    assert re.search(r"at least \d+", done.stderr)
    assert "bootstrap" not in done.stderr
    assert "download packages" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_does_not_exist(run_cli, cache_dir: Path, tmp_path: Path) -> None:
    done = run_cli(
        "-i", "debian-minimal", "-k", "linux-image-nosuch", "-o", tmp_path / "a", "-w", tmp_path, "-c", cache_dir
    )
    assert done.returncode == 1
    assert "linux-image-nosuch" in done.stderr
    assert "-k" in done.stderr
    assert "full log: " in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- release and disk variants ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-d", "bookworm"], ["-n", "-m"], ["-f"], ["-k", "linux-image-amd64"]])
def test_variants(arguments: list[str], run_cli, cache_dir: Path, tmp_path: Path) -> None:
    done = run_cli(
        "-i", "debian-minimal", "-o", tmp_path / "a", "-w", tmp_path, "-c", cache_dir, *arguments, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    assert info(tmp_path / "a.qcow2", "qcow2")["virtual-size"] == 5 * GIB
    names = {package["name"] for package in json.loads((tmp_path / "a.qcow2.manifest.json").read_text())["packages"]}
    assert ("openssh-server" in names) == ("-n" not in arguments)
    assert ("tuned" in names) == ("-m" in arguments)
    assert ("linux-image-amd64" in names) == ("-k" in arguments)


@pytest.mark.slow
def test_bookworms_ping_keeps_its_capability(run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """Trixie's ping has none any more (a sysctl serves it)."""
    done = run_cli(
        *("-i", "debian-minimal", "-d", "bookworm", "-t", "tar", "-o", tmp_path / "a", "-w", tmp_path, "-c", cache_dir)
    )
    assert done.returncode == 0, done.stderr
    assert "SCHILY.xattr.security.capability" in tar_members(tmp_path / "a.tar")["usr/bin/ping"].pax_headers
