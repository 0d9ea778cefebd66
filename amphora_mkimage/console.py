"""What the user sees while work is done, and the full log behind it.

On a terminal one live line shows the step, its elapsed time and what is happening inside it; elsewhere each step prints
one timestamped line when it starts. What commands print goes to the log only, and its last lines into error messages.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, TextIO

TAIL_LINES = 20
_REFRESH_SECONDS = 0.1


def write(stream: TextIO, text: str) -> None:
    """Write to whoever watches; that nobody does any more (``| head``, a closed terminal) is no reason to fail."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        forget(stream)


def forget(stream: TextIO) -> None:
    """Let what is left of a stream that nobody reads, and what is written to it from now on, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Console:
    """Progress to people, everything to the log.

    :param stream: where progress goes (standard error, so that standard output stays for results)
    :param log: binary, append-mode log of all that commands print; None keeps nothing
    :param trace: show every command as it is run (``-x``)
    """

    def __init__(self, stream: TextIO | None = None, log: IO[bytes] | None = None, *, trace: bool = False) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.log = log
        self.trace = trace
        self.live = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.started = time.monotonic()
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.timings: dict[str, float] = {}
        self._steps: list[str] = []
        self._drawn = 0.0

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Name the work that follows and measure it; steps may nest."""
        begin = time.monotonic()
        self._steps.append(title)
        self.note(title)
        try:
            yield
        finally:
            self._steps.pop()
            self.timings[title] = round(time.monotonic() - begin, 3)
            self._clear()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        self._print(f"{self._stamp()} {text}")

    def warn(self, text: str) -> None:
        """Print a line that stays and that the user should act on."""
        self.note(f"warning: {text}")

    def activity(self, text: str) -> None:
        """Show what is happening now inside the step; on a terminal only, and not more often than eyes can follow."""
        now = time.monotonic()
        if not self.live or now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        width = shutil.get_terminal_size().columns
        step = self._steps[-1] if self._steps else ""
        line = f"{self._stamp()} {step}: {text}".replace("\t", " ")
        self._show("\r\x1b[K" + line[: width - 1])

    def command(self, argv: Sequence[str]) -> None:
        """Record that a command starts; shown with ``-x``."""
        line = "+ " + shlex.join(argv)
        self.output(line, keep=False)
        if self.trace:
            self._clear()
            self._print(f"{self._stamp()} {line}")

    def output(self, line: str, *, keep: bool = True) -> None:
        """Take one line that a command printed.

        :param keep: also remember it for an error message
        """
        if keep and line.strip():
            self.tail.append(line)
        if self.log is not None:
            self.log.write(f"{self._stamp()} {line}\n".encode(errors="replace"))

    def _stamp(self) -> str:
        return f"[{time.monotonic() - self.started:7.1f}]"

    def _clear(self) -> None:
        if self.live:
            self._show("\r\x1b[K")

    def _show(self, text: str) -> None:
        write(self.stream, text)

    def _print(self, line: str) -> None:
        self._show(line + "\n")
        if self.log is not None:
            self.log.write((line + "\n").encode(errors="replace"))
