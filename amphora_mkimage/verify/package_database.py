"""The package database: dpkg's status file, or RPM's SQLite file.

libguestfs can list RPM packages, too (inspect_list_applications2), but only after inspect_os, which takes a quarter of
a minute under emulation; it evaluates the guest's own RPM macros, shell expansions among them, and fails in Debian 12's
appliance; and it cannot look into a tar. Names and versions are easily had from the file itself.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DPKG_STATUS = "/var/lib/dpkg/status"
#: Fedora 36 and RHEL 10 moved it and left a link.
RPM_DATABASES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
#: Berkeley DB (until RHEL 8) and ndb (SUSE): no system that the agent runs on.
RPM_OTHER = ("/var/lib/rpm/Packages", "/usr/lib/sysimage/rpm/Packages.db")
_SECONDS = 20.0
_HEADER_LIMIT = 32 << 20
_TAGS = {1000: "name", 1001: "version", 1002: "release", 1022: "arch"}
_STRING = 6


@dataclass(frozen=True)
class Package:
    """A package that the database knows.

    :param state: "" when it is completely installed, else dpkg's words for what it is
    """

    name: str
    version: str
    arch: str
    state: str = ""


class DatabaseError(Exception):
    """The database is damaged."""


def parse_dpkg(text: str) -> list[Package]:
    """Read /var/lib/dpkg/status (deb-policy 5, dpkg-query(1)); packages of which nothing is installed are left out."""
    found = []
    for stanza in text.split("\n\n"):
        fields = {}
        for line in stanza.splitlines():
            key, separator, value = line.partition(":")
            if separator and not line[0].isspace():
                fields[key] = value.strip()
        status = fields.get("Status", "").split()
        if "Package" not in fields or len(status) != 3 or status[2] in ("not-installed", "config-files"):
            continue
        _want, error, state = status
        complete = error == "ok" and state == "installed"
        problem = "" if complete else " ".join([state] + ([] if error == "ok" else [error]))
        name, version, arch = (fields.get(key, "") for key in ("Package", "Version", "Architecture"))
        found.append(Package(name, version, arch, problem))
    return found


def parse_rpm(database: bytes, log: bytes) -> list[Package]:
    """Read rpmdb.sqlite (rpm, lib/backend/sqlite.c: a table of header blobs).

    :param log: rpmdb.sqlite-wal, which may hold the latest changes
    :raises DatabaseError: it cannot be read
    """
    with tempfile.TemporaryDirectory(prefix="amphora-verify-") as directory:
        path = Path(directory) / "rpmdb.sqlite"
        path.write_bytes(database)
        path.with_name("rpmdb.sqlite-wal").write_bytes(log)
        try:
            blobs = _blobs(path)
        except sqlite3.Error as error:
            raise DatabaseError(str(error)) from error
    packages = (_package(blob) for blob in blobs)
    return [package for package in packages if package.name != "gpg-pubkey"]  # a key that rpm lists among them


def _blobs(path: Path) -> list[bytes]:
    connection = sqlite3.connect(path)
    try:
        # SQLite, "Defense Against The Dark Arts": what to switch off before one reads a database of a stranger's.
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        end = time.monotonic() + _SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        kinds = connection.execute("SELECT type FROM sqlite_master WHERE name = 'Packages'").fetchall()
        if kinds != [("table",)]:
            raise sqlite3.DatabaseError("it has no table Packages")
        rows = connection.execute("SELECT blob FROM Packages").fetchall()
    finally:
        connection.close()
    return [blob for (blob,) in rows if isinstance(blob, bytes)]


def _package(blob: bytes) -> Package:
    """Read a header (rpm, docs/manual/format_v4.md): counts, an index of 16-byte entries, then their data."""
    try:
        count, size = struct.unpack_from(">II", blob)
        store = blob[8 + count * 16 :]
        if count * 16 > len(blob) or size > _HEADER_LIMIT:
            raise DatabaseError("a header has an impossible size")
        fields = dict.fromkeys(_TAGS.values(), "")
        for entry in range(count):
            tag, kind, offset, _ = struct.unpack_from(">IIiI", blob, 8 + entry * 16)
            if tag in _TAGS and kind == _STRING and 0 <= offset < len(store):
                fields[_TAGS[tag]] = store[offset : offset + 256].split(b"\0")[0].decode(errors="replace")
    except struct.error as error:
        raise DatabaseError("a header is cut off") from error
    return Package(fields["name"], f"{fields['version']}-{fields['release']}", fields["arch"])
