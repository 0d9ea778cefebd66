"""What a killed process leaves is removed; what it keeps is left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from amphora_mkimage.guardian import guarded


def in_child(directory: Path, end: str) -> int:
    """Guard a directory in a process that ends in some way; its status."""
    child = os.fork()
    if child == 0:
        try:
            with guarded(directory):
                (directory / "deep").mkdir()
                (directory / "deep/file").write_text("x")
                (directory / "deep").chmod(0o700 if end == "block" else 0)
                if end == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if end == "exit":
                    os._exit(3)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_process_that_ends_inside(end: str, tmp_path: Path) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    assert in_child(directory, end) != 0
    deadline = time.monotonic() + 60
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_ends(tmp_path: Path) -> None:
    assert in_child(tmp_path, "block") == 0
    assert (tmp_path / "deep/file").read_text() == "x"
    with pytest.raises(KeyError), guarded(tmp_path):
        raise KeyError
    assert (tmp_path / "deep/file").exists()


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_signals_of_the_terminal_do_not_reach_it(tmp_path: Path) -> None:
    others = children()
    with guarded(tmp_path):
        (guard,) = children() - others
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guard, number)
        time.sleep(0.2)
        assert Path(f"/proc/{guard}/stat").read_text().rpartition(") ")[2][0] != "Z"
    assert tmp_path.exists()
