"""Files that are given to verify: images, tars, and what only looks like one."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from verify_tree import amphora

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, ExitStatus, MkimageError
from amphora_mkimage.verify import command, expectations, image_file, partition_table
from amphora_mkimage.verify.partition_table import BIOS_BOOT, ESP
from amphora_mkimage.verify.report import Report
from amphora_mkimage.verify.result import Check, Finding, Outcome, Result, fail, warn
from amphora_mkimage.verify.tar_tree import TarTree

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
MIB = 1 << 20
BOOT_RECORD = b"\x55\xaa".rjust(512, b"\0")


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


# --- formats ---------------------------------------------------------------------------------------------------------


@needs_qemu_img
@pytest.mark.parametrize(("kind", "qemu"), [("qcow2", "qcow2"), ("vhd", "vpc"), ("raw", "raw")])
def test_formats_are_told_by_content(kind: str, qemu: str, tmp_path: Path, console: Console) -> None:
    path = tmp_path / "image"
    options = ["-o", "subformat=fixed,force_size=on"] if kind == "vhd" else []
    qemu_img("create", "-f", qemu, *options, path, "64M")
    if kind == "raw":
        with path.open("r+b") as disk:
            disk.write(BOOT_RECORD)
    image = image_file.identify(path, console)
    assert (image.format, image.virtual_size, image.refusal) == (kind, 64 * MIB, "")


@needs_qemu_img
def test_a_qcow2_that_is_cut_off(tmp_path: Path, console: Console) -> None:
    source, path = tmp_path / "raw", tmp_path / "cut.qcow2"
    source.write_bytes(os.urandom(8 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, path)
    os.truncate(path, path.stat().st_size // 2)
    assert image_file.identify(path, console).damage != ()


@needs_qemu_img
def test_a_qcow2_with_a_backing_file_is_never_opened(tmp_path: Path, console: Console) -> None:
    (tmp_path / "secret.raw").write_bytes(b"secret".ljust(MIB, b"\0"))
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret.raw", "-F", "raw", tmp_path / "overlay.qcow2")
    report = command.verify(tmp_path / "overlay.qcow2", console)
    results = {outcome.check.id: outcome for outcome in report.outcomes}
    assert results["image.format"].result is Result.FAIL
    assert "secret.raw" in results["image.format"].findings[0].detail
    assert results["disk.system"].result is Result.NOT_APPLICABLE
    assert not report.complete


@needs_qemu_img
def test_a_qcow2_with_an_external_data_file_is_never_opened(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data.raw,data_file_raw=on", path, "1M")
    (tmp_path / "data.raw").unlink()  # qemu could not open it any more
    assert "another file" in image_file.identify(path, console).refusal


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello world\n", "no disk"),
        (b"\x1f\x8b" + bytes(MIB), "gzip"),
        (b"\xfd7zXZ\x00" + bytes(MIB), "xz"),
        (b"KDMV" + bytes(MIB), "VMDK"),
        (b'# Disk DescriptorFile\nRW 1 FLAT "/etc/shadow" 0\n', "VMDK"),
        (b"QFI\xfb\0\0\0\3", "header"),
        (b"\x7fELF" + bytes(MIB), "program"),
    ],
)
def test_what_is_no_image(content: bytes, words: str, tmp_path: Path, console: Console) -> None:
    path = tmp_path / "image.qcow2"
    path.write_bytes(content)
    with pytest.raises(MkimageError, match=words) as caught:
        image_file.identify(path, console)
    assert caught.value.status is ExitStatus.FAILED


def test_no_file_is_a_bad_value(tmp_path: Path, console: Console) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadValueError):
            image_file.identify(path, console)


# --- partition tables ------------------------------------------------------------------------------------------------


def gpt_disk(sectors: int, *partitions: tuple[str, int, int]) -> bytearray:
    """A disk with a GPT and its backup; partitions are (type, first sector, last sector)."""
    disk = bytearray(sectors * 512)
    disk[446:462] = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, sectors - 1)
    disk[510:512] = b"\x55\xaa"
    table = b"".join(
        uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ72s", first, last, 0, b"")
        for kind, first, last in partitions
    ).ljust(128 * 128, b"\0")
    for here, there, at in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)):
        fields = (here, there, 34, sectors - 34, bytes(16), at, 128, 128, zlib.crc32(table))
        header = b"EFI PART" + struct.pack("<IIII", 0x10000, 92, 0, 0) + struct.pack("<QQQQ16sQIII", *fields)
        header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
        disk[here * 512 : here * 512 + 92] = header
        disk[at * 512 : at * 512 + len(table)] = table
    return disk


def parse(disk: bytes, size: int | None = None) -> partition_table.PartitionTable:
    return partition_table.parse(lambda offset, count: bytes(disk[offset : offset + count]), size or len(disk))


GOOD = ((BIOS_BOOT, 2048, 4095), (ESP, 4096, 8191), ("0fc63daf-8483-4772-8e79-3d69d8477de4", 8192, 16000))


def test_gpt() -> None:
    table = parse(gpt_disk(20480, *GOOD))
    assert table.kind == "gpt"
    assert table.problems == ()
    assert [(p.number, p.start, p.size) for p in table.partitions] == [
        (1, MIB, MIB),
        (2, 2 * MIB, 2 * MIB),
        (3, 4 * MIB, (16000 - 8192 + 1) * 512),
    ]
    assert table.esp is not None


def test_gpt_of_a_disk_that_is_cut_off() -> None:
    disk = gpt_disk(20480, *GOOD)
    table = parse(disk[: 10000 * 512])
    assert any("end of the disk" in problem for problem in table.problems)
    assert any("partition 3" in problem for problem in table.problems)


@pytest.mark.parametrize(("place", "words"), [(512 + 40, "checksum"), (1024 + 40, "entries"), (20479 * 512, "backup")])
def test_gpt_that_is_damaged(place: int, words: str) -> None:
    disk = gpt_disk(20480, *GOOD)
    disk[place] ^= 0xFF
    table = parse(disk)
    assert any(words in problem for problem in table.problems)
    assert len(table.partitions) == 3, "the other copy is good"


def test_overlapping_partitions() -> None:
    table = parse(gpt_disk(20480, (BIOS_BOOT, 2048, 5000), (ESP, 4096, 8191)))
    assert table.problems == ("partitions 1 and 2 overlap",)


def test_hostile_sizes_end() -> None:
    disk = gpt_disk(20480, *GOOD)
    header = bytearray(disk[512 : 512 + 92])
    struct.pack_into("<II", header, 80, 0xFFFFFFFF, 0xFFFFFFFF)
    header[16:20] = bytes(4)
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    disk[512 : 512 + 92] = header
    assert any("impossible size" in problem for problem in parse(disk).problems)


def mbr_disk(sectors: int, *entries: tuple[int, int, int, int]) -> bytearray:
    disk = bytearray(sectors * 512)
    for number, (status, kind, start, count) in enumerate(entries):
        struct.pack_into("<B3xB3xII", disk, 446 + 16 * number, status, kind, start, count)
    disk[510:512] = b"\x55\xaa"
    return disk


def test_mbr_with_logical_partitions_and_a_loop() -> None:
    disk = mbr_disk(20480, (0x80, 0x83, 2048, 2048), (0, 0x05, 8192, 8192))
    struct.pack_into("<B3xB3xII", disk, 8192 * 512 + 446, 0, 0x82, 2048, 1000)
    disk[8192 * 512 + 510 : 8192 * 512 + 512] = b"\x55\xaa"
    table = parse(disk)
    assert [(p.number, p.type, p.active) for p in table.partitions] == [
        (1, "0x83", True),
        (2, "0x05", False),
        (5, "0x82", False),
    ]
    struct.pack_into("<B3xB3xII", disk, 8192 * 512 + 462, 0, 0x05, 0, 8192)  # the next one is itself
    assert any("chain" in problem for problem in parse(disk).problems)


def test_a_filesystem_is_no_partition_table() -> None:
    boot_sector = bytearray(b"\xeb\x3c\x90mkfs.fat" * 60)[:512].ljust(4096, b"\0")
    boot_sector[510:512] = b"\x55\xaa"
    assert parse(boot_sector).kind == ""
    assert parse(b"").kind == ""


def grub_disk() -> bytearray:
    """GRUB's boot sector, and a core image of two extents' worth in the BIOS boot partition."""
    disk = gpt_disk(20480, *GOOD)
    disk[0x180:0x184] = b"GRUB"
    struct.pack_into("<Q", disk, 0x5C, 2048)
    disk[2048 * 512] = 0x52
    struct.pack_into("<QHH", disk, 2049 * 512 - 12, 2049, 60, 0x820)
    disk[2049 * 512] = 0x52
    return disk


def core_problem(disk: bytes) -> str:
    return partition_table.grub_core_problem(parse(disk), lambda offset, size: bytes(disk[offset : offset + size]))


def test_grub_core() -> None:
    assert core_problem(grub_disk()) == ""


@pytest.mark.parametrize(
    ("place", "content", "words"),
    [
        (0x5C, struct.pack("<Q", 5000), "where nothing is"),
        (0x5C, struct.pack("<Q", 1 << 60), "where nothing is"),
        (2049 * 512 - 12, bytes(12), "not GRUB's core"),
        (2049 * 512, bytes(512), "not GRUB's core"),
        (2049 * 512 - 12, struct.pack("<QHH", 2049, 0xFFFF, 0), "does not lie inside"),
    ],
)
def test_grub_core_that_is_broken(place: int, content: bytes, words: str) -> None:
    disk = grub_disk()
    disk[place : place + len(content)] = content
    assert words in core_problem(disk)


# --- tars ------------------------------------------------------------------------------------------------------------


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("../../etc/cron.d/x", size=1)], "leads out"),
        ([member("/etc/x", size=1)], "absolute"),
        ([member("a", tarfile.SYMTYPE, "/etc"), member("a/passwd", size=1)], "not a directory"),
        ([member("a", tarfile.LNKTYPE, "../../../etc/shadow")], "leads out"),
        ([member("a", tarfile.LNKTYPE, "not-there")], "hard link"),
    ],
)
def test_hostile_archives(members: list[tarfile.TarInfo], words: str, tmp_path: Path) -> None:
    tree = TarTree(tar_of(tmp_path / "x.tar", *members))
    assert any(words in problem for problem in tree.problems)
    tree.close()


def test_hard_links_and_links_in_a_tar(tmp_path: Path) -> None:
    members = [
        member("./usr/bin/a", size=3),
        member("./usr/bin/b", tarfile.LNKTYPE, "./usr/bin/a"),
        member("./bin", tarfile.SYMTYPE, "usr/bin"),
        member("./fifo", tarfile.FIFOTYPE),
    ]
    tree = TarTree(tar_of(tmp_path / "x.tar", *members))
    assert tree.problems == []
    assert tree.read("/bin/b") == b"xxx"
    assert tree.read("/bin/../bin/a", offset=1, size=9) == b"xx"
    assert tree.resolve("/bin/b") == ("/usr/bin/b", tree.entry("/usr/bin/a"))
    assert not tree.is_file("/fifo")
    assert sorted(tree.listdir("/")) == ["bin", "fifo", "usr"]
    tree.close()


def cut_in_content(content: bytes) -> bytes:
    return content[: len(content) // 2 // 512 * 512 + 100]


def cut_between_members(content: bytes) -> bytes:
    return content[: content.index(b"./etc/os-release\0") // 512 * 512]


def negative_size(content: bytes) -> bytes:
    # CVE-2025-8194: base-256 for -512
    start = content.index(b"./usr/lib/os-release\0")
    header = bytearray(content[start : start + 512])
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:start] + bytes(header) + content[start + 512 :]


def huge_extended_header(content: bytes) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    return info.tobuf(tarfile.USTAR_FORMAT) + content


@pytest.mark.parametrize("harm", [cut_in_content, cut_between_members, negative_size, huge_extended_header])
def test_a_broken_tar_is_refused(harm: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = amphora().tar(tmp_path / "x.tar")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(MkimageError, match="not a complete tar"):
        TarTree(path)


def test_a_tar_without_a_system(tmp_path: Path, console: Console) -> None:
    report = command.verify(tar_of(tmp_path / "x.tar", member("hello", size=5)), console)
    failed = [outcome.check.id for outcome in report.outcomes if outcome.result is Result.FAIL]
    assert failed == ["disk.system"]


# --- expectations and the report -------------------------------------------------------------------------------------


def test_a_manifest_is_read(tmp_path: Path) -> None:
    document = {
        "settings": {"size_gib": 3, "ssh": False, "root_password": "set", "datasources": ["ConfigDrive", "Ec2"]},
        "packages": [{"name": "haproxy", "version": "3"}, "rubbish"],
        "agent": None,
        "image": {"format": "qcow2", "virtual_size": 1},
    }
    image = tmp_path / "x.qcow2"
    expectations.manifest_of(image).write_text(json.dumps(document))
    expected = expectations.load(image)
    assert expected.virtual_size == 3 << 30
    assert (expected.ssh, expected.root_password, expected.agent) == (False, "set", False)
    assert expected.packages == {"haproxy": "3"}
    assert expectations.load(image, None, 5, "any").virtual_size == 5 << 30
    assert expectations.load(image, None, 5, "any").root_password == "any"


@pytest.mark.parametrize(
    ("settings", "agent", "octavia"),
    [
        ({"octavia": "16.0.0"}, {"octavia": "19.0.0"}, "16.0.0"),
        ({"octavia": "unknown"}, {"octavia": "16.1.1.dev3"}, "16.1.1.dev3"),
        ({}, {"octavia": "19.0.0"}, "19.0.0"),
        ({"octavia": ["16"]}, None, ""),
    ],
)
def test_the_controllers_are_those_of_the_settings_else_the_agents(
    settings: dict[str, object], agent: object, octavia: str, tmp_path: Path
) -> None:
    image = tmp_path / "x.qcow2"
    expectations.manifest_of(image).write_text(json.dumps({"settings": settings, "agent": agent}))
    assert expectations.load(image).octavia == octavia


@pytest.mark.parametrize(
    ("record", "read"),
    [
        ({"features": {"HTTP": "ok", "PING": "unknown keyword"}}, expectations.Configurations(2, ("PING",))),
        ({"features": {"HTTP": "ok"}}, expectations.Configurations(1, ())),
        ({"features": ["HTTP"]}, None),
        ([], None),
    ],
)
def test_what_the_build_said_of_the_configurations(
    record: object, read: expectations.Configurations | None, tmp_path: Path
) -> None:
    image = tmp_path / "x.qcow2"
    expectations.manifest_of(image).write_text(json.dumps({"agent": {"configurations": record}}))
    assert expectations.load(image).configurations == read


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"settings": [], "packages": {}, "image": 3, "agent": true}', "[" * 9999]
)
def test_a_strange_manifest_is_no_traceback(text: str, tmp_path: Path) -> None:
    image = tmp_path / "x.qcow2"
    expectations.manifest_of(image).write_text(text)
    expected = expectations.load(image)
    assert expected.agent
    assert bool(expected.problem) is not text.startswith('{"')


def test_a_named_manifest_must_exist(tmp_path: Path) -> None:
    with pytest.raises(BadValueError):
        expectations.load(tmp_path / "x.qcow2", tmp_path / "absent.json")


def test_a_changed_file_is_not_what_its_manifest_describes(tmp_path: Path, console: Console) -> None:
    path = amphora().tar(tmp_path / "x.tar")
    expectations.manifest_of(path).write_text(json.dumps({"image": {"sha256": "0" * 64, "format": "tar"}}))
    report = command.verify(path, console)
    assert [o.check.id for o in report.outcomes if o.result is Result.FAIL] == ["image.manifest"]


def test_text_and_json(tmp_path: Path, console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    tree = amphora()
    tree.write("/etc/ssh/ssh_host_\x1b[31m_key", "x")
    report = command.verify(tree.tar(tmp_path / "x.tar"), console)
    text = report.text()
    assert "\x1b" not in text
    assert "SSH host keys" in text
    assert "NOT a complete amphora: 1 failure, 0 warnings" in text
    assert "pass: " not in text
    assert "pass: " in report.text(everything=True)
    document = json.loads(report.json())
    assert set(document) == {"image", "format", "virtual_size", "system", "checks", "summary"}
    assert document["summary"]["complete"] is False
    assert document["summary"]["fail"] == 1
    assert {frozenset(check) for check in document["checks"]} == {
        frozenset({"id", "group", "title", "result", "detail", "findings"})
    }


def a_report(*outcomes: Outcome) -> Report:
    return Report(image_file.ImageFile(Path("x.qcow2"), "qcow2", 5 << 30, 1), outcomes, "Debian", 2.0)


def test_a_title_stands_once_above_what_was_found() -> None:
    packages = Check("a.b", "packages", "required packages", lambda _: ())
    lines = a_report(
        Outcome(packages, (fail("haproxy is missing", "install it"), fail("ipvsadm is missing"), warn("old"))),
        Outcome(Check("a.c", "boot", "kernel", lambda _: ()), (Finding(Result.PASS, "fine"),)),
    ).text()
    assert lines.splitlines() == [
        "x.qcow2: qcow2, 5 GiB, Debian",
        "",
        "packages: 1 failed",
        "  fail: required packages",
        "      haproxy is missing",
        "        -> install it",
        "      ipvsadm is missing",
        "      warn: old",
        "",
        "NOT a complete amphora: 2 failures, 1 warning (2 checks: 1 failed, 1 passed; 2 s)",
    ]


def test_a_good_image_is_told_in_two_lines() -> None:
    text = a_report(Outcome(Check("a.c", "boot", "kernel", lambda _: ()), (Finding(Result.PASS, "fine"),))).text()
    assert text.splitlines() == [
        "x.qcow2: qcow2, 5 GiB, Debian",
        "a complete amphora: 0 failures, 0 warnings (1 checks: 1 passed; 2 s)",
    ]


def test_checks_that_found_the_same_share_it() -> None:
    checks = [Check(f"a.{title}", "boot", title, lambda _: ()) for title in ("kernel", "initramfs")]
    text = a_report(*(Outcome(check, (fail("no /boot"),)) for check in checks)).text()
    assert "  fail: kernel, initramfs\n      no /boot\n" in text


def test_findings_wrap_at_words_with_a_hanging_indent() -> None:
    path = "/usr/" + "x" * 100
    long = fail("word " * 30 + path, "do " * 30 + "it")
    lines = a_report(Outcome(Check("a.b", "boot", "kernel", lambda _: ()), (long,))).text(width=60).splitlines()
    assert [line for line in lines if len(line) >= 60] == [f"        {path}"]
    assert sum(line.startswith("        word") for line in lines) >= 2
    assert sum(line.startswith("          do") for line in lines) >= 1


def test_nothing_is_claimed_of_an_image_that_others_built(tmp_path: Path, console: Console) -> None:
    tree = amphora()
    tree.remove("/usr/sbin/sshd")
    tree.remove("/etc/systemd/system/multi-user.target.wants/ssh.service")
    text = command.verify(tree.tar(tmp_path / "x.tar"), console).text()
    assert "there is no SSH server" in text
    assert "built without" not in text


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (5 << 30, "5 GiB"),
        ((5 << 30) + 512, "5.00 GiB (5368709632 bytes)"),
        (2 << 20, "2 MiB"),
        (2362232012, "2.20 GiB (2362232012 bytes)"),
        (512, "512 bytes"),
    ],
)
def test_sizes_are_said_as_people_do(size: int, said: str) -> None:
    assert image_file.human_size(size) == said


@pytest.mark.parametrize(
    ("name", "why"),
    [("junk.qcow2", "named .qcow2, but not one"), ("junk.RAW", "named .raw, but"), ("junk", "neither qcow2 nor vhd")],
)
def test_noise_is_not_an_image(name: str, why: str, tmp_path: Path, console: Console) -> None:
    path = tmp_path / name
    path.write_bytes(os.urandom(510) + b"xx" + os.urandom(2 * MIB - 512))
    with pytest.raises(MkimageError, match=f"is not an image: {why}"):
        command.verify(path, console)


@pytest.mark.parametrize("size", ["0", "-1", "5G", "2.5", "", "٣"])
def test_a_bad_size_is_refused(size: str) -> None:
    with pytest.raises(BadValueError, match="--size"):
        command._size(size)
