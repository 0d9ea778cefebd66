"""The root filesystem of a guest under construction, read through the guest's verbs, a handle of libguestfs among them.

Nothing is run: a listing is one verb for the names and one for what they are, so that a tree in this host's memory is
read through open descriptors, and one in an appliance by calls that its daemon answers itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Protocol

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.verify.tree import Entry, Tree, TreeError

#: One message of libguestfs holds 4 MiB (guestfs(3), "PROTOCOL LIMITS").
_CHUNK = 2 << 20


class Reader(Protocol):
    """The verbs that read; a subset of :class:`~amphora_mkimage.guest.protocol.Guest`."""

    def ls0(self, dir: str, filenames: str) -> None:  # noqa: A002 (libguestfs' name)
        """Write the names in a directory, each with a NUL after it, to a file of this host."""

    def lstatnslist(self, path: str, names: list[str]) -> list[dict[str, int]]:
        """Look at names in a directory."""

    def readlinklist(self, path: str, names: list[str]) -> list[str]:
        """Read symbolic links in a directory."""

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Read a part of a file."""


class GuestTree(Tree):
    """The root filesystem of a guest.

    :param reader: its verbs
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def _list(self, directory: str) -> Mapping[str, Entry]:
        # Not "ls": libguestfs' binding gives up at a name that is not UTF-8, and with it everything beside that name.
        file = os.memfd_create("names")  # a file by name would cost more than all else
        try:
            self._reader.ls0(directory, f"/proc/self/fd/{file}")
            raw = [name for name in os.pread(file, os.fstat(file).st_size, 0).split(b"\0") if name]
            # Such a name cannot be asked for; it is there, of no type, so that whoever needs it fails.
            names, others = [], {}
            for name in raw:
                try:
                    names.append(name.decode())
                except UnicodeDecodeError:
                    others[name.decode(errors="backslashreplace")] = Entry(0, 0, 0, 0)
            return others | self._look(directory, names)
        except (OSError, MkimageError) as error:
            raise TreeError(f"{directory}: {error}") from error
        finally:
            os.close(file)

    def _look(self, directory: str, names: list[str]) -> dict[str, Entry]:
        if not names:
            return {}
        stats = self._reader.lstatnslist(directory, names)
        links = [n for n, s in zip(names, stats, strict=True) if stat.S_ISLNK(s["st_mode"])]
        targets = dict(zip(links, self._reader.readlinklist(directory, links), strict=True)) if links else {}
        return {
            name: Entry(s["st_mode"], s["st_uid"], s["st_gid"], s["st_size"], targets.get(name, ""))
            for name, s in zip(names, stats, strict=True)
            if s["st_ino"] != -1  # lstatnslist: it could not be looked at
        }

    def _read(self, path: str, offset: int, size: int) -> bytes:
        content = b""
        while len(content) < size:
            try:
                chunk = self._reader.pread(path, min(size - len(content), _CHUNK), offset + len(content))
            except (OSError, MkimageError) as error:
                raise TreeError(f"{path}: {error}") from error
            if not chunk:
                raise TreeError(f"{path} ends early")
            content += chunk
        return content
