"""Download files: several at once, resumed where they broke off, bounded in size and time, with progress.

Each file is fetched by a thread; the caller's thread watches, shows progress, breaks off what is too slow, and breaks
off all others when one fails or the user interrupts.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from amphora_mkimage import __version__, trouble
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch import transport
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import NotThereError, Policy, TransientError

if TYPE_CHECKING:  # that it is installed is transport's business
    import requests

_CHUNK = 1 << 16
_PARALLEL = 4
_TICK = 0.1
#: How long a thread that was told to stop is waited for; it is a daemon and can be left behind.
_GRACE = 2.0


class Target(Protocol):
    """Where a file's content goes."""

    @property
    def size(self) -> int:
        """Bytes that are there."""

    def resume(self) -> tuple[int, str]:
        """Give the offset from which to go on, and the validator that the rest must have ("" for any)."""

    def restart(self, validator: str) -> None:
        """Drop what is there; what follows has this validator (RFC 9110, 8.8), or "" when the server gave none."""

    def write(self, chunk: bytes) -> None:
        """Add bytes."""


class Memory:
    """A small file that is kept in memory."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._validator = ""

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return len(self.content)

    def resume(self) -> tuple[int, str]:
        """Go on only with what is surely the same file."""
        return (self.size, self._validator) if self._validator else (0, "")

    def restart(self, validator: str) -> None:
        """Drop what is there."""
        self.content.clear()
        self._validator = validator

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self.content += chunk


class Transfer:
    """One file on its way.

    :param limit: bytes; a larger file is refused
    :param optional: a file that is not there is no error: ``missing`` tells
    """

    def __init__(
        self, location: Location, target: Target, limit: int, policy: Policy | None = None, *, optional: bool = False
    ) -> None:
        self.location = location
        self.target = target
        self.total: int | None = None
        self.missing = False
        self.remarks: collections.deque[str] = collections.deque()
        self._limit = limit
        self._policy = policy or Policy()
        self._optional = optional
        self._stop = threading.Event()
        self._asked = 0.0  #: when the question was asked that has no answer yet
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._received = 0
        self._window = (0.0, 0)  #: when the rate was measured last, and what was received until then
        self._slow = False

    def run(self) -> None:
        """Fetch the file; called in a thread.

        :raises MkimageError: it cannot be had
        """
        verify = transport.ca_bundle(os.environ)
        best, failures = self.target.size, 0
        while not self._stop.is_set():
            try:
                return self._attempt(verify)
            except NotThereError:
                if not self._optional:
                    raise
                self.missing = True
                return None
            except TransientError as error:
                reason = "too slow" if self._slow else error.reason
                failures = 1 if self.target.size >= best + self._policy.progress else failures + 1
                best = max(best, self.target.size)
                if failures >= self._policy.attempts:
                    raise MkimageError(
                        f"cannot fetch {self.location.shown}: {reason} (tried {failures} times)",
                        trouble.remedy(reason, self.location.variable),
                    ) from None
                self.remarks.append(f"{self.location.host}: {self.location.name}: {reason}; trying again")
                self._stop.wait(self._delay(failures) if error.retry_after is None else error.retry_after)
        return None

    def watch(self, now: float) -> None:
        """Break off what is too slow; called from time to time, from another thread.

        :param now: time.monotonic()
        :raises MkimageError: the server does not get to answering
        """
        if self._asked and now - self._asked > self._policy.answer_timeout:
            raise MkimageError(
                f"cannot fetch {self.location.shown}: the server does not answer",
                f"name another place with {self.location.variable}",
            )
        with self._lock:
            since, before = self._window
            if self._socket is None or now - since < self._policy.read_timeout:
                return
            if self._received - before < self._policy.slowest * (now - since):
                self._slow = True
                self._break()
            self._window = (now, self._received)

    def abort(self) -> None:
        """Make :meth:`run` return soon; called from another thread."""
        self._stop.set()
        with self._lock:
            self._break()

    def _delay(self, failures: int) -> float:
        # Half of it is random, so that many builds that lost one server do not come back to it in step.
        longest = min(self._policy.longest_delay, self._policy.first_delay * 2.0 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)

    def _attempt(self, verify: str | bool) -> None:
        offset, validator = self.target.resume()
        headers = {"User-Agent": f"amphora-mkimage/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator:
                headers["If-Range"] = validator
        self._slow = False
        with transport.Session() as session:
            self._asked = time.monotonic()
            try:
                response = transport.get(session, self.location, headers, self._policy, verify)
            finally:
                self._asked = 0.0
            with response:
                if not self._begin(response, offset):
                    self._read(response)

    def _begin(self, response: requests.Response, offset: int) -> bool:
        """Read the head of an answer; True when all of the file is here already."""
        headers = response.headers
        if response.status_code == 200:
            self.target.restart(_validator(headers))
            # A length beside chunks means nothing (RFC 9112, 6.3).
            self.total = None if "transfer-encoding" in headers else _number(headers.get("content-length", ""))
        elif response.status_code == 206 and offset:
            match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", headers.get("content-range", ""))
            if not match or int(match[1]) != offset:
                self.target.restart("")
                raise TransientError("the server sent another part than was asked for")
            self.total = _number(match[2])
        elif response.status_code == 416 and offset:
            if headers.get("content-range", "") == f"bytes */{offset}":
                return True
            self.target.restart("")
            raise TransientError("the server has less of it than is here")
        else:
            transport.refuse(response, self.location, self._policy)
        self._check_size(self.total or 0)
        return False

    def _read(self, response: requests.Response) -> None:
        try:
            self._attach(response)
            while True:
                with transport.translated(self.location):
                    # Undecoded: the checksum is of the file, whatever the server thinks that it is.
                    chunk = response.raw.read(_CHUNK, decode_content=False)
                if self._stop.is_set():
                    return
                if not chunk:
                    break
                self._check_size(self.target.size + len(chunk))
                self.target.write(chunk)
                self._received += len(chunk)
        finally:
            self._detach()
        if self._slow:
            raise TransientError("too slow")
        # Not every version of urllib3 tells when a body is shorter than its Content-Length.
        if self.total is not None and self.target.size != self.total:
            raise TransientError(f"it broke off after {self.target.size} of {self.total} bytes")

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise MkimageError(
                f"{self.location.shown} is larger than {self._limit} bytes: refused",
                "that is not a file which belongs there: name another mirror",
            )

    def _attach(self, response: requests.Response) -> None:
        """Get hold of the connection, so that another thread can break it off while this one waits for bytes."""
        with self._lock:
            with contextlib.suppress(OSError, ValueError):  # an empty body has no connection any more
                self._socket = socket.socket(fileno=os.dup(response.raw.fileno()))
            self._window = (time.monotonic(), self._received)
            if self._stop.is_set():
                self._break()

    def _detach(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _break(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def fetch_all(transfers: Sequence[Transfer], console: Console) -> None:
    """Fetch files, several at once; when one fails, the others are broken off.

    :raises MkimageError: what failed first
    """
    waiting = collections.deque(transfers)
    errors: list[BaseException] = []

    def work() -> None:
        while waiting and not errors:
            try:
                waiting.popleft().run()
            except IndexError:
                return  # another thread was quicker
            except BaseException as error:  # raised again below, in the caller's thread
                errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_PARALLEL, len(transfers)))]
    begin = time.monotonic()
    before = sum(transfer.target.size for transfer in transfers)
    try:
        for thread in threads:
            thread.start()
        while not errors and (alive := next((thread for thread in threads if thread.is_alive()), None)):
            alive.join(_TICK)
            _supervise(transfers, console)
            console.activity(_progress(transfers, before, time.monotonic() - begin))
    finally:
        for transfer in transfers:
            transfer.abort()
        for thread in threads:
            thread.join(_GRACE)
    if errors:
        raise errors[0]


def _supervise(transfers: Sequence[Transfer], console: Console) -> None:
    for transfer in transfers:
        transfer.watch(time.monotonic())
        while transfer.remarks:
            console.note(transfer.remarks.popleft())


def _progress(transfers: Sequence[Transfer], before: int, seconds: float) -> str:
    done = sum(transfer.target.size for transfer in transfers)
    totals = [transfer.total for transfer in transfers]
    known = [total for total in totals if total is not None]
    of = f" of {sum(known) / 1e6:.0f}" if len(known) == len(totals) else ""
    rate = max(0, done - before) / max(seconds, 0.1) / 1e6
    name = transfers[0].location.name if len(transfers) == 1 else f"{len(transfers)} files"
    return f"{name}: {done / 1e6:.0f}{of} MB, {rate:.1f} MB/s"


def _validator(headers: Mapping[str, str]) -> str:
    """Give what If-Range may ask for (RFC 9110, 13.1.5): a strong entity tag, else a date."""
    tag, date = headers.get("etag", ""), headers.get("last-modified", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag):
        return tag
    return date if re.fullmatch(r"[A-Z][a-z]{2}, [0-9A-Za-z: ]{1,40} GMT", date) else ""


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
