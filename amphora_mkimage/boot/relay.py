"""Carry TCP connections from this host to the guest: accepted in one network namespace, made in another."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping

#: How long a guest may take to accept; a controller waits for about as long.
_CONNECT_SECONDS = 60.0
_CHUNK = 65536


def start(listeners: Mapping[socket.socket, tuple[str, int]]) -> None:
    """Accept connections in threads, and connect each from here to the address of its listener.

    A connection that the guest refuses is accepted and closed, as qemu's own forwarding does it.
    """
    for listener, address in listeners.items():
        threading.Thread(target=_accept, args=(listener, address), daemon=True).start()


def _accept(listener: socket.socket, address: tuple[str, int]) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_carry, args=(connection, address), daemon=True).start()


def _carry(connection: socket.socket, address: tuple[str, int]) -> None:
    with connection, contextlib.suppress(OSError), socket.create_connection(address, _CONNECT_SECONDS) as guest:
        guest.settimeout(None)
        back = threading.Thread(target=_copy, args=(guest, connection), daemon=True)
        back.start()
        _copy(connection, guest)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy one direction to its end, and pass the end on."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
