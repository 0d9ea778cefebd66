"""What a build leaves: images that other programs accept, and nothing of the host in them."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import tarfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector

from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, formats, layout
from amphora_mkimage.guest import userns

GIB = 1 << 30
PASSWORD = "correct-horse-4711-battery"


def info(path: Path, kind: str) -> dict[str, object]:
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", kind, path], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def tar_members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def tar_file(path: Path, name: str) -> str:
    with tarfile.open(path) as tar:
        file = tar.extractfile(f"./{name}")
        assert file is not None
        return file.read().decode()


def root_field(path: Path) -> str:
    (line,) = (line for line in tar_file(path, "etc/shadow").splitlines() if line.startswith("root:"))
    return line.split(":")[1]


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


def test_the_disk_has_a_table_and_three_partitions(raw_and_vhd) -> None:
    done = subprocess.run(["sfdisk", "--json", raw_and_vhd.raw], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)["partitiontable"]
    assert table["label"] == "gpt"
    assert [entry["name"] for entry in table["partitions"]] == ["bios", "esp", "root"]
    subprocess.run(["sfdisk", "--verify", raw_and_vhd.raw], check=True, capture_output=True)


# -- manifest and sums -----------------------------------------------------------------------------------------------


def test_manifest(built) -> None:
    found = json.loads(built.manifest.read_text())
    assert found["image"]["sha256"] == hashlib.sha256(built.qcow2.read_bytes()).hexdigest()
    assert found["image"]["bytes"] == built.qcow2.stat().st_size
    assert found["image"]["virtual_size"] == 5 * GIB
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


@dataclass(frozen=True)
class Second:
    place: Path
    raw: Path
    vhd: Path
    tar: Path
    stderr: str
    log: str


@pytest.fixture(scope="module")
def raw_and_vhd(built, run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Second:
    place = tmp_path_factory.mktemp("second")
    (place / "password").write_text(f"{PASSWORD}\nnot this line\n")
    done = run_cli(
        *("-i", "debian-minimal", "-t", "raw,vhd,tar", "-s", "1", "-x", "-o", place / "a", "-w", place),
        *("-c", cache_dir, "-l", place / "log", "--root-password-file", place / "password"),
    )
    assert done.returncode == 0, done.stderr
    log = (place / "log").read_text()
    return Second(place, place / "a.raw", place / "a.vhd", place / "a.tar", done.stderr, log)


def test_raw(raw_and_vhd: Second) -> None:
    assert info(raw_and_vhd.raw, "raw")["virtual-size"] == GIB
    assert raw_and_vhd.raw.stat().st_size == GIB
    assert raw_and_vhd.raw.stat().st_blocks * 512 < GIB  # sparse


def test_vhd_is_fixed_and_exact(raw_and_vhd: Second) -> None:
    """Azure wants a fixed VHD of whole MiB: the disk, then a footer of 512 bytes (VHD specification)."""
    assert info(raw_and_vhd.vhd, "vpc")["virtual-size"] == GIB
    assert raw_and_vhd.vhd.stat().st_size == GIB + 512
    with raw_and_vhd.vhd.open("rb") as file:
        file.seek(-512, os.SEEK_END)
        footer = file.read()
    assert footer.startswith(b"conectix")
    assert struct.unpack_from(">I", footer, 60)[0] == 2  # fixed
    assert struct.unpack_from(">Q", footer, 48)[0] == GIB


def test_raw_and_vhd_have_the_same_content(raw_and_vhd: Second) -> None:
    subprocess.run(["cmp", "--bytes", str(GIB), raw_and_vhd.raw, raw_and_vhd.vhd], check=True, capture_output=True)


def test_a_second_build_fetches_indexes_only(raw_and_vhd: Second) -> None:
    assert "unpack the cached base" in raw_and_vhd.stderr
    assert "bootstrap" not in re.sub(r"\+ .*", "", raw_and_vhd.stderr)
    fetched = [line for line in raw_and_vhd.log.splitlines() if re.search(r"\] Get:\d+ ", line)]
    assert [line for line in fetched if not re.search(r"(InRelease|Packages|Diff|Release(\.gpg)?)\b", line)] == []


def test_trace_shows_commands(raw_and_vhd: Second, built) -> None:
    assert re.search(r"\] \+ mke2fs ", raw_and_vhd.stderr)
    assert "+ mke2fs" not in built.stderr
    log = built.log.read_text()
    assert "+ mke2fs" in log
    # Line by line what was said, from the first to the last step.
    assert [line for line in built.stderr.splitlines() if line not in log.splitlines()] == []


def test_the_password_is_in_the_image_as_its_hash_only(raw_and_vhd: Second, cache_dir: Path) -> None:
    digest = root_field(raw_and_vhd.tar)
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    assert library.crypt(PASSWORD.encode(), digest.encode()) == digest.encode()
    texts = [raw_and_vhd.stderr, raw_and_vhd.log, (raw_and_vhd.place / "a.raw.manifest.json").read_text()]
    for text in texts:
        assert PASSWORD not in text
        assert digest not in text
    for file in (raw_and_vhd.raw, raw_and_vhd.tar):
        found = subprocess.run(
            ["grep", "--count", "--text", "--fixed-strings", PASSWORD, file], capture_output=True, check=False
        )
        assert found.stdout.strip() == b"0"
    assert json.loads(texts[2])["settings"]["root_password"] == "set"
    found = subprocess.run(["grep", "-rlF", "-e", PASSWORD, "-e", digest, cache_dir], capture_output=True, check=False)
    assert found.stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="a loopback mount needs root")
def test_loopback_mount(raw_and_vhd: Second, tmp_path: Path) -> None:
    done = subprocess.run(["sfdisk", "--json", raw_and_vhd.raw], capture_output=True, text=True, check=True)
    root = json.loads(done.stdout)["partitiontable"]["partitions"][2]
    options = f"loop,ro,noload,offset={root['start'] * 512},sizelimit={root['size'] * 512}"
    subprocess.run(["mount", "-t", "ext4", "-o", options, raw_and_vhd.raw, tmp_path], check=True)
    try:
        assert "ID=debian" in (tmp_path / "etc/os-release").read_text()
        assert os.access(tmp_path / "usr/sbin/haproxy", os.X_OK)
        (kernel,) = (tmp_path / "boot").glob("vmlinuz-*")
        version = kernel.name.removeprefix("vmlinuz-")
        assert (tmp_path / f"boot/initrd.img-{version}").stat().st_size > 1 << 20
        assert (tmp_path / f"lib/modules/{version}/modules.dep").exists()
        assert version in (tmp_path / "boot/grub/grub.cfg").read_text()
        assert (tmp_path / "etc/shadow").stat().st_gid == 42
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# -- the plan --------------------------------------------------------------------------------------------------------


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
