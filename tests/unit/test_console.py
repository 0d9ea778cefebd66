"""What is shown while work is done: on a terminal (a real one, pty(7)) and elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amphora_mkimage import cli, ticker
from amphora_mkimage.console import Console, wrap
from amphora_mkimage.errors import ExitStatus, MkimageError

#: Of a test's ticker; the program's own are a second and half a minute.
OFTEN = 0.02


class Terminal:
    """A terminal of 72 columns, and all that was printed on it."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        subprocess.run(["stty", "-F", os.ttyname(slave), "cols", "72"], check=True)
        self.stream = os.fdopen(slave, "w")
        self.text = ""

    def read_until(self, wanted: str | Callable[[str], bool]) -> str:
        """Read until something was printed, as long as a test may take."""
        enough = wanted if callable(wanted) else lambda text: wanted in text
        end = time.monotonic() + 60
        while not enough(self.text):
            assert time.monotonic() < end, self.text
            self.text += os.read(self.master, 65536).decode()
        return self.text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal = Terminal()
    yield terminal
    terminal.stream.close()
    os.close(terminal.master)


def stamps(text: str) -> set[str]:
    """The clocks of the live line."""
    return set(re.findall(r"\r\x1b\[K\[ *([0-9.]+)\] bootstrap \([0-9]+ s\): unpacking libc6(?=\r)", text))


def wait_for(stream: io.StringIO, done: Callable[[str], bool]) -> list[str]:
    end = time.monotonic() + 60
    while not done(stream.getvalue()):
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(OFTEN)
    return stream.getvalue().splitlines()


def test_the_live_line_moves_though_nothing_happens(terminal: Terminal) -> None:
    console = Console(terminal.stream, interval=OFTEN)
    with console.step("bootstrap"):
        console.activity("unpacking libc6")
        terminal.read_until(lambda text: len(stamps(text)) >= 3)
    assert terminal.text.startswith("\r\x1b[K[")


def test_elsewhere_a_long_step_is_told_again() -> None:
    stream, log = io.StringIO(), io.BytesIO()
    console = Console(stream, log, interval=OFTEN)
    with console.step("bootstrap"):
        console.activity("unpacking libc6")
        lines = wait_for(stream, lambda text: text.count("\n") >= 3)
    assert lines[0].endswith("] bootstrap")
    assert all(
        re.fullmatch(r"\[ +[0-9.]+\] still: bootstrap \([0-9]+ s\): unpacking libc6", line) for line in lines[1:]
    )
    assert log.getvalue().decode().splitlines()[: len(lines)] == lines


def test_elsewhere_a_step_that_speaks_is_not_told_again() -> None:
    stream = io.StringIO()
    console = Console(stream, interval=3600)
    with console.step("bootstrap"):
        console._tick()
    assert stream.getvalue().count("bootstrap") == 1


def test_nothing_is_shown_of_a_step_that_is_over() -> None:
    stream = io.StringIO()
    console = Console(stream, interval=OFTEN)
    with console.step("outer"):
        with console.step("inner"):
            wait_for(stream, lambda text: "inner (" in text)
        wait_for(stream, lambda text: "outer (" in text)
        assert sum(thread.name == "ticker" for thread in threading.enumerate()) == 1
    assert not any(thread.name == "ticker" for thread in threading.enumerate())


def test_what_another_process_shows_is_not_shown_twice() -> None:
    console = Console(io.StringIO(), interval=OFTEN)
    with console.aside(), console.step("fetch"):
        assert not any(thread.name == "ticker" for thread in threading.enumerate())
    with console.step("bootstrap"):
        assert any(thread.name == "ticker" for thread in threading.enumerate())


def test_forks_in_the_middle_of_a_tick() -> None:
    """A child that takes over a lock without its owner would wait for ever."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(read, 65536), b"")], daemon=True)
        drain.start()
        console = Console(stream, interval=1e-5)
        with console.step("outer"):
            for _ in range(200):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)  # nobody else would end it
                    with console.step("inner"):
                        console.note("note")
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
    drain.join()
    os.close(read)


def test_the_lock_is_held_while_a_process_forks() -> None:
    """And is free in both afterwards."""
    assert ticker.LOCK.acquire(blocking=False)
    ticker.LOCK.release()
    child = os.fork()
    if child == 0:
        free: list[bool] = []
        thread = threading.Thread(target=lambda: free.append(ticker.LOCK.acquire(blocking=False)))
        thread.start()
        thread.join()
        os._exit(0 if free == [True] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_long_lines_wrap_at_words_below_the_text(terminal: Terminal) -> None:
    text = "warning: -r shows the password to every user of this host while it runs; prefer --root-password-file"
    Console(terminal.stream).note(text)
    printed = terminal.read_until("--root-password-file").replace("\x1b[K", "")
    rows = [row.strip("\r") for row in printed.splitlines() if row.strip("\r")]
    assert len(rows) == 2
    assert all(len(row) < 72 for row in rows)
    assert rows[1].startswith(" " * 10)
    assert " ".join(row.strip() for row in rows).partition("] ")[2] == text


def test_words_that_do_not_fit_stay_whole(terminal: Terminal) -> None:
    path = "/" + "x" * 200
    assert path in wrap(f"built {path} (200 MB)", terminal.stream, 4)
    assert wrap("word " * 100, io.StringIO(), 4) == "word " * 100  # elsewhere a line is a line


def test_an_interrupt_leaves_no_live_line_behind(
    start_cli: Callable[..., subprocess.Popen[bytes]], terminal: Terminal, tmp_path: Path
) -> None:
    """A build that waits for its mirror, and Ctrl-C: the error stands on a line of its own."""
    with socket.create_server(("127.0.0.1", 0)) as mirror:  # takes connections, and never answers
        where = ("-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache")
        child = start_cli(
            *("-i", "debian-minimal", "--no-agent", *where),
            env={"TERM": "xterm", "BASE_OS_MIRROR": f"http://127.0.0.1:{mirror.getsockname()[1]}/debian"},
            stdin=terminal.stream, stdout=terminal.stream, stderr=terminal.stream, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        terminal.read_until(lambda text: re.search(r"read the package archive \([1-9]", text) is not None)
        os.write(terminal.master, b"\x03")
        terminal.read_until("interrupted\r\n")
        assert child.wait(timeout=60) == 130
    assert "\namphora-mkimage: error: interrupted" in re.sub(r"[^\n]*\r\x1b\[K", "", terminal.text)
    assert [line for line in terminal.text.splitlines() if "building in a user namespace" in line]
    assert "ids" not in terminal.text.partition("read the package archive")[0]


def test_an_error_stands_on_a_line_of_its_own(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the process that drew the live line had no time to remove it."""
    monkeypatch.setattr("sys.stderr", terminal.stream)
    terminal.stream.write("[    1.0] bootstrap: unpacking^C")
    cli._report(MkimageError("interrupted"))
    assert terminal.read_until("interrupted\r\n").partition("^C")[2].startswith("\r\x1b[K")


def test_an_interrupted_command_says_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(_arguments: object, console: Console) -> int:
        with console.step("booting"), contextlib.suppress(OSError), console.step("waiting"):
            console.activity("[ OK ] Reached target network.target")
            raise KeyboardInterrupt

    monkeypatch.setattr("amphora_mkimage.boot.command.run", run)
    assert cli.main(["boot", "/image"]) == ExitStatus.INTERRUPTED
    *_, what, where = capfd.readouterr().err.splitlines()
    assert what == "amphora-mkimage: error: interrupted"
    assert re.fullmatch(r"    \[ +[0-9.]+\] waiting \(0 s\): \[ OK \] Reached target network.target", where)
