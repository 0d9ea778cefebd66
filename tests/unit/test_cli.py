"""What the command line does around its commands."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from amphora_mkimage import cli


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("check",)])
def test_a_reader_that_has_seen_enough(arguments: tuple[str, ...], start_cli: Callable[..., subprocess.Popen[bytes]]):
    """``amphora-mkimage --help | head -1``."""
    read, write = os.pipe()
    os.close(read)
    child = start_cli(*arguments, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0
    assert b"Error" not in errors


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


def test_a_cache_that_cannot_be_made(run_cli, tmp_path: Path) -> None:
    done = run_cli("-i", "debian-minimal", "-o", tmp_path / "a", "-w", tmp_path, "-c", "/proc/nothing")
    assert done.returncode == 1
    assert "error: No such file or directory: /proc/nothing" in done.stderr
    assert "Traceback" not in done.stderr.partition("error:")[0]


def test_nohup() -> None:
    """What ignores the end of the terminal goes on ignoring it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.raises(SystemExit):
            cli.main(["--version"])
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
