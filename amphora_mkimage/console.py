"""What the user sees while work is done, and the full log behind it.

On a terminal one live line shows the step, how long it has taken and what is happening inside it; it moves each second.
Elsewhere each step prints one line when it starts, and another one now and then while it lasts, so that a log of CI is
never silent. What commands print goes to the log only, and its last lines into error messages.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import IO, TextIO

from amphora_mkimage import ticker
from amphora_mkimage.streams import write

TAIL_LINES = 20
_REFRESH_SECONDS = 0.1
#: How often a step that goes on is shown on a terminal, and elsewhere.
LIVE_SECONDS, QUIET_SECONDS = 1.0, 30.0


def is_live(stream: TextIO) -> bool:
    """Return whether a line that was printed there can be replaced by another."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def clear_line(stream: TextIO) -> None:
    """Remove the live line, and the ``^C`` that a terminal may have put behind it."""
    if is_live(stream):
        write(stream, "\r\x1b[K")


def columns(stream: TextIO) -> int:
    """Return the width of a terminal; standard output may be a file where standard error is one."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def wrap(line: str, stream: TextIO, hang: int) -> str:
    """Return a line as several where a terminal is narrower; words, such as paths, stay whole.

    :param hang: columns by which those after the first are indented
    """
    if not stream.isatty():
        return line
    width = max(40, columns(stream) - 1)
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    rows = textwrap.wrap(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(rows)


class Console:
    """Progress to people, everything to the log.

    :param stream: where progress goes (standard error, so that standard output stays for results)
    :param log: binary, append-mode log of all that commands print; None keeps nothing
    :param trace: show every command as it is run (``-x``)
    :param interval: seconds after which a step that goes on is shown again (default: as the stream wants it)
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        log: IO[bytes] | None = None,
        *,
        trace: bool = False,
        interval: float | None = None,
    ) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.log = log
        self.trace = trace
        self.live = is_live(self.stream)
        self.interval = interval or (LIVE_SECONDS if self.live else QUIET_SECONDS)
        self.started = self._spoken = time.monotonic()
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []
        self.unfinished = ""  #: what was being done when the user interrupted it
        self._steps: list[tuple[str, float]] = []
        self._doing = ""
        self._drawn = 0.0
        self._ticks_in = 0  # process that shows a step that goes on

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Name the work that follows and measure it; steps may nest."""
        begin = time.monotonic()
        self._steps.append((title, begin))
        self._doing = ""
        self.note(title)
        try:
            with self._shown():
                yield
        except KeyboardInterrupt:
            self.unfinished = self.unfinished or self._state()
            raise
        finally:
            self._steps.pop()
            self._doing = ""
            self.timings[title] = round(time.monotonic() - begin, 3)
            self._clear()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Show of the work that follows only when it begins: another process shows what it is doing meanwhile."""
        before, self._ticks_in = self._ticks_in, os.getpid()
        try:
            yield
        finally:
            self._ticks_in = before

    def note(self, text: str) -> None:
        """Print a line that stays."""
        stamp = self._stamp()
        self._print(f"{stamp} {text}", hang=len(stamp) + 1)

    def detail(self, text: str) -> None:
        """Record what only those who look for it want to know; shown with ``-x``."""
        if self.trace:
            self.note(text)
        else:
            self.output(text, keep=False)

    def warn(self, text: str) -> None:
        """Print a line that stays and that the user should act on."""
        self.warnings.append(text)
        self.note(f"warning: {text}")

    def activity(self, text: str) -> None:
        """Show what is happening now inside the step; not more often than eyes can follow."""
        self._doing = text
        if self.live and time.monotonic() - self._drawn >= _REFRESH_SECONDS:
            self._draw()

    def command(self, argv: Sequence[str]) -> None:
        """Record that a command starts; shown with ``-x``."""
        line = "+ " + shlex.join(argv)
        self.output(line, keep=False)
        if self.trace:
            self._print(f"{self._stamp()} {line}", hang=0)

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

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Show the innermost step again and again, unless an outer one has started that."""
        if self._ticks_in == os.getpid():
            yield
            return
        before, self._ticks_in = self._ticks_in, os.getpid()
        try:
            with ticker.ticking(self.interval, self._tick):
                yield
        finally:
            self._ticks_in = before

    def _tick(self) -> None:
        if self.live:
            self._draw()
        elif time.monotonic() - self._spoken >= self.interval:
            # Told apart from a step that begins, for those who look for that.
            self._print(self._state("still: "), hang=0)

    def _state(self, lead: str = "") -> str:
        """Return the step that goes on, how long it has taken, and what it is doing."""
        innermost = self._steps[-1:]  # in one go: the ticker asks while others begin and end steps
        if not innermost:
            return f"{self._stamp()} {self._doing}"
        title, begin = innermost[0]
        doing = f": {self._doing}" if self._doing else ""
        return f"{self._stamp()} {lead}{title} ({time.monotonic() - begin:.0f} s){doing}".replace("\t", " ")

    def _draw(self) -> None:
        with ticker.LOCK:
            self._drawn = time.monotonic()
            write(self.stream, "\r\x1b[K" + self._state()[: columns(self.stream) - 1])

    def _clear(self) -> None:
        if self.live:
            with ticker.LOCK:
                write(self.stream, "\r\x1b[K")

    def _print(self, line: str, *, hang: int) -> None:
        with ticker.LOCK:
            self._clear()
            self._spoken = time.monotonic()
            write(self.stream, wrap(line, self.stream, hang) + "\n")
            if self.log is not None:
                self.log.write((line + "\n").encode(errors="replace"))
