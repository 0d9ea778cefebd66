"""Real boots in real qemu.

Most guests here are boot sectors of a few bytes: they let qemu, the serial ports, the monitor and every way to end be
tried in seconds. Whether an image of ours runs is tried with a built image, under BIOS and UEFI.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage.boot import session
from amphora_mkimage.boot.hardware import HARDWARE
from amphora_mkimage.cli import main
from amphora_mkimage.errors import ExitStatus

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-system-x86_64", "qemu-img", "xorriso", "openssl"))),
    reason="needs qemu-system-x86, qemu-utils, xorriso and openssl",
)
COM1, COM2 = 0x3F8, 0x2F8
#: What a boot sector does in the end.
HANG = b"\xf4\xeb\xfd"  # hlt; jmp back to it
SWITCH_OFF = b"\xba\x04\x06\xb8\x00\x20\xef" + HANG  # out 0x604, 0x2000: ACPI's soft off on qemu's "pc" machine
RESTART = b"\xb0\xfe\xe6\x64" + HANG  # out 0x64, 0xfe: reset by the keyboard controller


def boot_sector(path: Path, *output: tuple[int, str], then: bytes = HANG) -> Path:
    """Make a raw disk whose boot sector writes text to serial ports, and then does something.

    :param output: base address of the port, and text
    """
    # The BIOS empties its own buffer for the serial port at ticks of the clock, so it is given a few of them.
    code = b"\xb9\x08\x00\xf4\xe2\xfd"  # mov cx,8; wait: hlt; loop wait
    code += b"\x31\xc0\x8e\xd8\xfc"  # xor ax,ax; mov ds,ax; cld
    texts = b""
    size = len(code) + 14 * len(output) + len(then)
    for port, text in output:
        address = 0x7C00 + size + len(texts)
        # mov si,text; mov dx,port; next: lodsb; test al,al; jz done; out dx,al; jmp next; done:
        code += b"\xbe" + address.to_bytes(2, "little") + b"\xba" + port.to_bytes(2, "little")
        code += b"\xac\x84\xc0\x74\x03\xee\xeb\xf8"
        texts += text.encode() + b"\0"
    program = code + then + texts
    assert len(program) <= 510
    path.write_bytes(program.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    return path


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have temporary files where they can be counted."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare guests of a few bytes the trial of KVM."""
    monkeypatch.setenv("AMPHORA_MKIMAGE_ACCEL", "tcg")


def boot(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Run ``amphora-mkimage boot --json``; its status and result."""
    status = main(["boot", "--json", *map(str, arguments)])
    out = capsys.readouterr().out
    return status, json.loads(out) if out else {}


def processes_with(text: Path) -> list[int]:
    """The processes that have something in their command line, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(text).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return [pid for pid in found if pid != os.getpid()]


def is_alive(pid: int) -> bool:
    """Does a process run? One that ended counts as ended even while its parent has not asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- what ends early ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("firmware", "problem"),
    [
        ([], "the BIOS found no boot loader on the disk"),
        (["--uefi"], "the UEFI firmware found no boot loader on the disk"),
    ],
)
@pytest.mark.parametrize("image_format", ["qcow2", "vpc"])
def test_an_empty_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], image_format: str, firmware: list[str], problem: str
) -> None:
    image = tmp_path / "empty"
    subprocess.run(["qemu-img", "create", "-q", "-f", image_format, str(image), "16M"], check=True)
    before = image.read_bytes()
    status, result = boot(capsys, *firmware, image)
    assert status == ExitStatus.FAILED
    assert result["problems"] == [problem]
    assert result["firmware"] == ("uefi" if firmware else "bios")
    assert result["state"] is None
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arch", "qemu", "problem"),
    [
        ("arm64", "qemu-system-aarch64", "the UEFI firmware found no boot loader on the disk"),
        ("armhf", "qemu-system-arm", "the UEFI firmware found no boot loader on the disk"),
        ("ppc64le", "qemu-system-ppc64", "Open Firmware found no boot loader on the disk"),
    ],
)
def test_an_empty_disk_of_another_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arch: str, qemu: str, problem: str
) -> None:
    if shutil.which(qemu) is None:
        pytest.skip(f"needs {qemu}")
    image = tmp_path / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M"], check=True)
    status, result = boot(capsys, "--arch", arch, image)
    if status == ExitStatus.HOST:
        pytest.skip("needs its firmware")
    assert result["problems"] == [problem]
    assert result["accelerator"] == "tcg"


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("text", "then", "problem"),
    [
        ("GRUB loading.\r\nerror: no such device.\r\ngrub rescue> ", HANG, "GRUB stopped at its rescue prompt"),
        ("[ 1.0] Kernel panic - not syncing: No working init found.\r\n", HANG, "panicked: No working init found."),
        ("Begin: Mounting root\r\n\r\n(initramfs) ", HANG, "the initramfs gave up"),
        ("bye\r\n", SWITCH_OFF, "the guest switched itself off"),
        ("again\r\n", RESTART, "the guest restarts in a loop"),
    ],
)
def test_a_guest_that_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, then: bytes, problem: str
) -> None:
    status, result = boot(capsys, boot_sector(tmp_path / "disk", (COM1, text), then=then))
    assert status == ExitStatus.FAILED
    assert len(result["problems"]) == 1
    assert problem in result["problems"][0]
    # The evidence is kept, and nothing else.
    log = Path(result["console_log"])
    assert text.strip() in log.read_bytes().decode()
    assert list((tmp_path / "tmp").iterdir()) == [log]


@pytest.mark.usefixtures("emulated")
def test_too_late_names_the_units_that_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = '{"event":"started"}\r\n{"event":"waiting","jobs":["networking.service"]}\r\n'
    status, result = boot(capsys, "--timeout", "5", boot_sector(tmp_path / "disk", (COM2, reports)))
    assert status == ExitStatus.FAILED
    late = "not running after 5 s; still starting: networking.service"
    assert result["problems"] == [f"{late}; the console last said: Booting from Hard Disk..."]
    assert result["starting_units"] == ["networking.service"]


@pytest.mark.usefixtures("emulated")
def test_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SILENCE_SECONDS", 3.0)
    _, result = boot(capsys, boot_sector(tmp_path / "disk"))
    assert result["problems"] == ["the guest said nothing for 3 s"]


@pytest.mark.usefixtures("emulated")
def test_an_image_without_cloud_init(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOGIN_SECONDS", 2.0)
    _, result = boot(capsys, boot_sector(tmp_path / "disk", (COM1, "Debian GNU/Linux 13 ttyS0\r\n\r\nhost login: ")))
    assert "cloud-init did not run the user data" in result["problems"][0]


@pytest.mark.usefixtures("emulated")
def test_a_guest_that_reports_but_serves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(session, "_ASK_SECONDS", 1.0)
    reports = [
        {"event": "started"},
        {"event": "running", "state": "degraded"},
        {"event": "facts", "failed": [{"unit": "a.service", "journal": ["boom"]}], "cloud_init": {"runcmd": True}},
        {"event": "haproxy", "version": "x", "valid": True, "started": True},
        {"event": "end"},
    ]
    text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in reports)
    status, result = boot(capsys, boot_sector(tmp_path / "disk", (COM2, text)))
    assert status == ExitStatus.FAILED
    assert result["failed_units"] == [{"unit": "a.service", "journal": ["boom"]}]
    assert [problem.partition(":")[0] for problem in result["problems"]] == [
        "a.service failed",
        "haproxy does not answer",
    ]


@pytest.mark.usefixtures("emulated")
def test_text_output_and_live_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = boot_sector(tmp_path / "disk", (COM1, "\x1b[31mhello\x1b[0m\r\ngrub rescue> "))
    assert main(["boot", "--console", str(image)]) == ExitStatus.FAILED
    captured = capsys.readouterr()
    assert "] hello\n" in captured.err
    assert "problem: GRUB stopped at its rescue prompt" in captured.out
    assert "    grub rescue>" in captured.out


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_file_that_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "letter.qcow2"
    image.write_text("Dear Sir or Madam\n")
    assert main(["boot", str(image)]) == ExitStatus.BAD_VALUE
    assert "no disk image" in capsys.readouterr().err


@pytest.mark.usefixtures("emulated")
def test_an_image_that_something_writes_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M"], check=True)
    with subprocess.Popen(["qemu-io", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write("length\n")
        writer.stdin.flush()
        while "16 MiB" not in writer.stdout.readline():
            pass
        assert main(["boot", str(image)]) == ExitStatus.FAILED
        writer.stdin.write("quit\n")
    assert "lock" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--timeout", "0"],
        ["--timeout", "soon"],
        ["--memory", "1"],
        ["--haproxy-config", "/nonexistent"],
        ["--haproxy-config", os.devnull],
    ],
)
def test_bad_values(tmp_path: Path, arguments: list[str]) -> None:
    assert main(["boot", *arguments, str(boot_sector(tmp_path / "disk"))]) == ExitStatus.BAD_VALUE


@pytest.mark.usefixtures("emulated")
def test_a_host_without_firmware(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default of a parameter is bound when the function is defined.
    monkeypatch.setattr("amphora_mkimage.boot.firmware.find.__defaults__", ((tmp_path,),))
    assert main(["boot", "--uefi", str(boot_sector(tmp_path / "disk"))]) == ExitStatus.HOST
    assert "ovmf" in capsys.readouterr().err


@pytest.mark.usefixtures("emulated")
def test_a_host_without_qemu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HARDWARE, "amd64", dataclasses.replace(HARDWARE["amd64"], qemu="qemu-system-none"))
    assert main(["boot", str(boot_sector(tmp_path / "disk"))]) == ExitStatus.HOST
    assert "qemu-system-x86" in capsys.readouterr().err
    assert list((tmp_path / "tmp").iterdir()) == []


# --- nothing is left behind --------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path, emulated: None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The tool in a process of its own, and its qemu; the guest has started and hangs."""
    image = boot_sector(tmp_path / "disk", (COM1, "hello\r\n"))
    argv = [sys.executable, "-m", "amphora_mkimage", "boot", "--console", str(image)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        assert tool.stderr is not None
        for line in tool.stderr:
            if b"hello" in line:
                break
        # A process that outlives the tool by a moment has the tool's command line.
        qemus = [pid for pid in processes_with(image) if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]
        assert len(qemus) == 1
        try:
            yield tool, qemus[0]
        finally:
            tool.kill()
            if is_alive(qemus[0]):
                os.kill(qemus[0], signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_qemu_outlives_the_tool(
    running: tuple[subprocess.Popen[bytes], int], tmp_path: Path, number: signal.Signals
) -> None:
    tool, qemu = running
    tool.send_signal(number)
    status = tool.wait(30)
    end = time.monotonic() + 30
    while is_alive(qemu) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(qemu)
    # After SIGKILL a process that is left removes the files, and ends.
    while list((tmp_path / "tmp").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list((tmp_path / "tmp").iterdir()) == []
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
        return
    assert status == ExitStatus.INTERRUPTED
    assert tool.stderr is not None
    said = tool.stderr.read().decode()
    assert "error: interrupted" in said and "serial console last said\n" in said and "\n    hello\n" in said


def test_a_qemu_that_is_killed_is_noticed(running: tuple[subprocess.Popen[bytes], int]) -> None:
    tool, qemu = running
    os.kill(qemu, signal.SIGKILL)
    assert tool.wait(30) == ExitStatus.FAILED
    assert tool.stdout is not None
    assert b"problem: qemu was killed by SIGKILL" in tool.stdout.read()


# --- what runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_built_image_runs_and_does_what_a_controller_asks(
    built_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under UEFI. CI boots it under the BIOS, for Octavia's own client: test_octavia_client.py."""
    before = hashlib.sha256(built_image.read_bytes()).hexdigest()
    status, result = boot(capsys, "--uefi", "--timeout", "1800", built_image)
    assert result["problems"] == [], json.dumps(result, indent=2)
    assert status == ExitStatus.OK
    assert result["state"] == "running"
    assert result["failed_units"] == []
    assert result["haproxy"] is None
    assert [step["name"] for step in result["agent"]["steps"] if step["ok"]] == [
        *("info", "details", "refuse strangers", "plug VIP", "upload configuration"),
        *("start", "traffic", "reload", "heartbeat", "delete"),
    ]
    assert result["agent"]["failed_units"] == []
    assert "DataSourceConfigDrive" in result["cloud_init"]["datasource"]
    assert result["boot_seconds"] > 0
    assert hashlib.sha256(built_image.read_bytes()).hexdigest() == before
