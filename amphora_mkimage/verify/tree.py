"""A root filesystem to read, whatever it lies in, without trusting it.

Symbolic links are resolved here, one component after the other, inside the root filesystem: nothing that an image
contains can make us look at a file of this host or of the appliance. What is read is regular files of limited size
only: a FIFO would block for ever, a device may have no end.
"""

from __future__ import annotations

import fnmatch
import posixpath
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from amphora_mkimage.errors import MkimageError

#: More than any file that a check reads: the largest is an RPM database or a dpkg status.
READ_LIMIT = 64 << 20
#: More than any text that a check parses.
TEXT_LIMIT = 16 << 20
_LINK_LIMIT = 40  # as the kernel's (path_resolution(7))
_WALK_LIMIT = 50_000


class TreeError(MkimageError):
    """Something in the image cannot be read, or not safely."""


@dataclass(frozen=True)
class Entry:
    """A name in a directory, as lstat(2) sees it.

    :param mode: type and permission bits
    :param target: of a symbolic link
    """

    mode: int
    uid: int
    gid: int
    size: int
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Tell whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Tell whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Tell whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits, with setuid, setgid and sticky."""
        return stat.S_IMODE(self.mode)


_ROOT = Entry(stat.S_IFDIR | 0o755, 0, 0, 0)


class Tree(ABC):
    """Read-only access to a root filesystem by absolute paths of the guest."""

    def __init__(self) -> None:
        self._listings: dict[str, Mapping[str, Entry]] = {}

    @abstractmethod
    def _list(self, directory: str) -> Mapping[str, Entry]:
        """List a directory, given by its real path (free of links)."""

    @abstractmethod
    def _read(self, path: str, offset: int, size: int) -> bytes:
        """Read from a regular file, given by its real path; less than ``size`` bytes only at its end."""

    def resolve(self, path: str, *, follow: bool = True) -> tuple[str, Entry] | None:
        """Give the real path and its entry, None when there is nothing.

        :param follow: follow a link that is the last component, too
        """
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        real, entry, links = "/", _ROOT, 0
        while pending:
            part = pending.pop()
            if part == "..":
                real, entry = posixpath.dirname(real), _ROOT
                continue
            found = self._listing(real).get(part) if entry.is_directory else None
            if found is None:
                return None
            if found.is_link and (pending or follow):
                links += 1
                if links > _LINK_LIMIT:
                    return None
                pending += [p for p in reversed(found.target.split("/")) if p not in ("", ".")]
                if found.target.startswith("/"):
                    real = "/"
                entry = _ROOT
                continue
            real, entry = posixpath.join(real, part), found
        return real, entry

    def entry(self, path: str, *, follow: bool = True) -> Entry | None:
        """Give what is at a path, None when there is nothing."""
        found = self.resolve(path, follow=follow)
        return found[1] if found else None

    def exists(self, path: str) -> bool:
        """Tell whether something is there, after links."""
        return self.resolve(path) is not None

    def is_file(self, path: str) -> bool:
        """Tell whether a regular file is there, after links."""
        entry = self.entry(path)
        return entry is not None and entry.is_file

    def is_directory(self, path: str) -> bool:
        """Tell whether a directory is there, after links."""
        entry = self.entry(path)
        return entry is not None and entry.is_directory

    def is_executable(self, path: str) -> bool:
        """Tell whether an executable regular file is there, after links."""
        entry = self.entry(path)
        return entry is not None and entry.is_file and entry.permissions & 0o111 != 0

    def listdir(self, directory: str, pattern: str = "*") -> dict[str, Entry]:
        """List a directory by name, sorted; empty when there is none.

        :param pattern: as of a shell, for the names
        """
        found = self.resolve(directory)
        if found is None or not found[1].is_directory:
            return {}
        listing = self._listing(found[0])
        return {name: listing[name] for name in sorted(listing) if fnmatch.fnmatchcase(name, pattern)}

    def walk(self, directory: str) -> Iterator[tuple[str, Entry]]:
        """Go through everything below a directory, without following links; paths are below ``directory`` as given.

        :raises TreeError: there is too much
        """
        pending, count = [directory.rstrip("/")], 0
        while pending:
            current = pending.pop()
            for name, entry in self.listdir(current).items():
                count += 1
                if count > _WALK_LIMIT:
                    raise TreeError(f"{directory} has more than {_WALK_LIMIT} entries")
                yield f"{current}/{name}", entry
                if entry.is_directory:
                    pending.append(f"{current}/{name}")

    def read(self, path: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Read a regular file, or ``size`` bytes of it from ``offset``.

        :raises TreeError: it is not there, no regular file, or larger than :data:`READ_LIMIT`
        """
        found = self.resolve(path)
        if found is None:
            raise TreeError(f"{path} does not exist")
        real, entry = found
        if not entry.is_file:
            raise TreeError(f"{path} is not a regular file")
        wanted = max(0, min(entry.size - offset, entry.size if size is None else size))
        if wanted > READ_LIMIT:
            raise TreeError(f"{path} is too large to be read ({entry.size} bytes)")
        return self._read(real, offset, wanted) if wanted else b""

    def text(self, path: str) -> str:
        """Read a text file; "" when there is no regular file.

        :raises TreeError: it is larger than :data:`TEXT_LIMIT`
        """
        entry = self.entry(path)
        if entry is None or not entry.is_file:
            return ""
        if entry.size > TEXT_LIMIT:
            raise TreeError(f"{path} is too large for what it is ({entry.size} bytes)")
        return self.read(path).decode(errors="replace")

    def _listing(self, real: str) -> Mapping[str, Entry]:
        if real not in self._listings:
            self._listings[real] = self._list(real)
        return self._listings[real]


def is_root(tree: Tree) -> bool:
    """Tell whether an operating system starts here; os-release(5) may lie on a filesystem of its own (/usr)."""
    named = any(tree.entry(path, follow=False) for path in ("/etc/os-release", "/usr/lib/os-release"))
    return tree.is_directory("/etc") and (named or tree.is_file("/etc/fstab"))
