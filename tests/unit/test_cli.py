"""What the command line does around its commands."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amphora_mkimage import cli
from amphora_mkimage.errors import ExitStatus, HostError


def run_with_closed(start_cli: Callable[..., subprocess.Popen[bytes]], *arguments: object, closed: int) -> int:
    """The status of a command whose descriptor ``closed`` was closed before it began (``2>&-``)."""
    with Path(os.devnull).open("wb") as nowhere:
        child = start_cli(*arguments, stdout=nowhere, stderr=nowhere, preexec_fn=lambda: os.close(closed))
        return child.wait(timeout=300)


def run_with_broken_pipe(
    start_cli: Callable[..., subprocess.Popen[bytes]], *arguments: object, **more: object
) -> tuple[int, bytes]:
    """The status and the complaints of a command whose standard output nobody reads."""
    read, write = os.pipe()
    os.close(read)
    child = start_cli(*arguments, stdout=write, stderr=subprocess.PIPE, **more)
    os.close(write)
    _, errors = child.communicate(timeout=300)
    return child.returncode, errors


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("--version",)])
def test_a_reader_that_has_seen_enough(arguments: tuple[str, ...], start_cli: Callable[..., subprocess.Popen[bytes]]):
    """``amphora-mkimage --help | head -1``."""
    assert run_with_broken_pipe(start_cli, *arguments) == (0, b"")


def test_a_result_that_nobody_reads_has_its_status(
    start_cli: Callable[..., subprocess.Popen[bytes]], farm: Path, tmp_path: Path
) -> None:
    """``check | head -1`` on a host that cannot build, ``verify | head -1`` of what is not an amphora."""
    (farm / "mmdebstrap").unlink()
    status, errors = run_with_broken_pipe(start_cli, "check", env={"PATH": str(farm)})
    assert (status, errors) == (ExitStatus.HOST, b"")
    assert run_with_closed(start_cli, "check", closed=1) == ExitStatus.OK
    (tmp_path / "file").touch()
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "none.tar", "file"], check=True)
    status, errors = run_with_broken_pipe(start_cli, "verify", tmp_path / "none.tar")
    assert status == ExitStatus.FAILED
    assert b"rror" not in errors
    assert run_with_closed(start_cli, "verify", tmp_path / "none.tar", closed=2) == ExitStatus.FAILED
    assert run_with_closed(start_cli, "-a", "vax", closed=2) == ExitStatus.BAD_VALUE


def test_a_result_that_cannot_be_written_is_a_failure(start_cli: Callable[..., subprocess.Popen[bytes]]) -> None:
    with Path("/dev/full").open("wb") as full:
        child = start_cli("--help", stdout=full, stderr=subprocess.PIPE)
        _, errors = child.communicate(timeout=300)
    assert child.returncode == ExitStatus.FAILED
    assert b"standard output: No space left on device" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize(("arguments", "status"), [(("-a", "vax"), 3), (("-i", "debian-minimal", "--no-agent"), 1)])
def test_a_failure_that_nobody_reads_is_one(
    arguments: tuple[str, ...], status: int, start_cli: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """``amphora-mkimage 2>&1 | head -1``."""
    read, write = os.pipe()
    os.close(read)
    where = ("-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache")
    mirror = {"BASE_OS_MIRROR": "http://127.0.0.1:9/debian"}
    child = start_cli(*arguments, *where, env=mirror, stdout=write, stderr=write)
    os.close(write)
    assert child.wait(timeout=300) == status


@pytest.mark.parametrize("option", ["-c", "-w"])
def test_a_directory_that_cannot_be_made(option: str, run_cli, tmp_path: Path) -> None:
    """To root, access(2) allows everything; the kernel does not."""
    places = {"-o": tmp_path / "a", "-w": tmp_path, "-c": tmp_path / "cache", option: "/proc/nothing"}
    done = run_cli("-i", "debian-minimal", *(word for pair in places.items() for word in pair))
    assert done.returncode == ExitStatus.BAD_VALUE
    what, remedy = done.stderr.splitlines()
    assert what == f"amphora-mkimage: error: {option}: cannot make /proc/nothing: No such file or directory"
    assert remedy.startswith("  what to do: ")
    assert not list(tmp_path.iterdir())


def broken(error: BaseException) -> Callable[..., object]:
    def raise_it(*_: object, **__: object) -> object:
        raise error

    return raise_it


COMMANDS = {
    "build": ("amphora_mkimage.plan.make", ["-i", "debian-minimal", "--dry-run"]),
    "check": ("amphora_mkimage.probe.command.probes", ["check"]),
    "verify": ("amphora_mkimage.verify.command.verify", ["verify", "/nothing"]),
    "boot": ("amphora_mkimage.boot.haproxy.read_config", ["boot", "/nothing"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ZeroDivisionError("of ours"), "this is a defect of amphora-mkimage (ZeroDivisionError: of ours)"),
        (OSError(5, "Input/output error", "/some/file"), "Input/output error: /some/file"),
        (OSError(2, "No such file or directory", "/some/file"), "No such file or directory: /some/file"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
        (MemoryError(), "out of memory"),
        (RecursionError("much too\ndeep"), "this is a defect of amphora-mkimage (RecursionError: much too deep)"),
    ],
)
def test_no_traceback_ends_a_command(
    command: str,
    error: Exception,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The traceback is in the log, which the message names."""
    function, argv = COMMANDS[command]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(function, broken(error))
    places = ["-c", str(tmp_path / "cache"), "-w", str(tmp_path), "-o", str(tmp_path / "a")]
    with signals_kept():
        assert cli.main(argv + places * (command == "build")) == ExitStatus.FAILED
    printed = capfd.readouterr()
    first, remedy, *rest = printed.err.splitlines()
    assert first == f"amphora-mkimage: error: {what}"
    assert remedy.startswith("  what to do: ")
    named = [line.rpartition(" ")[2] for line in (remedy, *rest) if "log /" in line or "log: /" in line]
    assert len(named) == 1
    log = Path(named[0]).read_text()
    assert "Traceback (most recent call last)" in log
    assert type(error).__name__ in log
    assert "Traceback" not in printed.err
    assert len(rest) <= 1


def test_a_defect_in_the_namespace_ends_as_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where a build does its work; the program is run whole, with one of its functions replaced."""
    script = (
        "import sys; from amphora_mkimage import build, cli\n"
        "def run(self): raise ZeroDivisionError('of ours')\n"
        "build._Worker.run = run\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    argv = ["-i", "debian-minimal", "--no-agent", "-c", tmp_path / "cache", "-w", tmp_path, "-o", tmp_path / "a"]
    done = subprocess.run([sys.executable, "-c", script, *argv, "-l", tmp_path / "log"], check=False, timeout=300)
    assert done.returncode == ExitStatus.FAILED
    printed = capfd.readouterr().err
    assert "error: this is a defect of amphora-mkimage (ZeroDivisionError: of ours)" in printed
    assert f"what to do: please report it with the log {tmp_path}/log" in printed
    assert "Traceback" not in printed
    log = (tmp_path / "log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "raise ZeroDivisionError" in log or 'File "<string>"' in log


def test_errors_of_ours_stay_what_they_are(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("amphora_mkimage.probe.command.probes", broken(HostError("what", "remedy")))
    with signals_kept():
        assert cli.main(["check"]) == ExitStatus.HOST
    assert capfd.readouterr().err == "amphora-mkimage: error: what\n  what to do: remedy\n"


@contextlib.contextmanager
def signals_kept():
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_nohup() -> None:
    """What ignores the end of the terminal goes on ignoring it."""
    with signals_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.raises(SystemExit):
            cli.main(["--version"])
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
