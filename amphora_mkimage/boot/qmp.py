"""Talk to qemu: just enough of the QEMU Machine Protocol (docs/interop/qmp-spec in qemu's source)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

from amphora_mkimage.errors import MkimageError

_ANSWER_SECONDS = 60.0


class Monitor:
    """A monitor connection over one end of a socket pair, the other end of which qemu inherited.

    Inherited, and not listening in the file system: no path that could be too long (108 bytes), no other user who
    could connect.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""
        self._events: list[dict[str, Any]] = []

    def handshake(self) -> None:
        """Wait for the greeting and leave negotiation mode.

        :raises MkimageError: qemu ended, or does not answer
        """
        self._message(time.monotonic() + _ANSWER_SECONDS)
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return what it returned.

        :raises MkimageError: qemu ended, does not answer, or refused the command
        """
        request = json.dumps({"execute": command, "arguments": arguments}) + "\n"
        end = time.monotonic() + _ANSWER_SECONDS
        try:
            self._socket.sendall(request.encode())
        except OSError as error:
            raise MkimageError("qemu ended unexpectedly") from error
        while True:
            message = self._message(end)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise MkimageError(f"qemu refused {command}: {message['error'].get('desc')}")
            self._events.append(message)

    def events(self) -> list[dict[str, Any]]:
        """Return the events that arrived since the last call; never waits."""
        # qemu may have ended; whoever owns the process finds out and says so.
        with contextlib.suppress(MkimageError):
            while b"\n" in self._buffer or select.select([self._socket], [], [], 0)[0]:
                self._events.append(self._message(time.monotonic() + _ANSWER_SECONDS))
        events, self._events = self._events, []
        return [event for event in events if "event" in event]

    def close(self) -> None:
        """Close the connection; qemu goes on."""
        self._socket.close()

    def _message(self, end: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise MkimageError("qemu does not answer on its monitor")
            try:
                data = self._socket.recv(65536) if select.select([self._socket], [], [], remaining)[0] else None
            except ConnectionError as error:
                raise MkimageError("qemu ended unexpectedly") from error
            if data == b"":
                raise MkimageError("qemu ended unexpectedly")
            self._buffer += data or b""
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
