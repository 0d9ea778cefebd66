"""An RPM database as rpm writes it, with nothing but names and versions (rpm, docs/manual/format_v4.md)."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path


def rpm_database(names: list[str], path: Path) -> bytes:
    """Make rpmdb.sqlite; its content when it is closed."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")  # as rpm does
    connection.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)")
    for name in names:
        connection.execute("INSERT INTO Packages (blob) VALUES (?)", (rpm_header(name),))
    connection.commit()
    connection.close()
    return path.read_bytes()


def rpm_header(name: str) -> bytes:
    region, string, binary = 63, 6, 7
    values = [(1000, name), (1001, "3.0"), (1002, "1.fc42"), (1004, "summary"), (1022, "x86_64")]
    store, index = b"", b""
    for tag, value in values:
        index += struct.pack(">IIII", tag, string, len(store), 1)
        store += value.encode() + b"\0"
    count = len(values) + 1
    trailer = struct.pack(">IIiI", region, binary, -count * 16, 16)
    index = struct.pack(">IIII", region, binary, len(store), 16) + index
    return struct.pack(">II", count, len(store) + 16) + index + store + trailer
