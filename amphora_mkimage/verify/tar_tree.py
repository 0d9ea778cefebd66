"""The root filesystem in a tar, read where it lies.

Nothing is unpacked: the headers go into an index in memory, and the few files that checks read are read from their
place in the archive. That takes a second or two, needs no appliance and no privilege, and a hostile archive has nothing
to write to. The alternative, unpacking inside an appliance, costs a launch and minutes of emulation and shows no more.
"""

from __future__ import annotations

import posixpath
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.verify.tree import Entry, Tree, TreeError

_ENTRY_LIMIT = 1_000_000
_PROBLEM_LIMIT = 20
_HEADER_LIMIT = 256 << 10
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_TYPES = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


class _TarInfo(tarfile.TarInfo):
    """A header whose size is not a trap."""

    def _block(self, count: int) -> int:
        # CVE-2025-8194: a negative size makes tarfile read the same header for ever. Fixed in Python 3.11.14; Debian 12
        # has 3.11.2. This is the mitigation that the Python Security Response Team published.
        if count < 0:
            raise tarfile.ReadError("a member has a negative size")
        return super()._block(count)  # type: ignore[misc,no-any-return]

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # Extended headers are read whole, and searched with expressions that backtrack (CVE-2024-6232).
        if self.type in _EXTENDED and self.size > _HEADER_LIMIT:
            raise tarfile.ReadError("an extended header is too large")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class TarTree(Tree):
    """A tar of a root filesystem.

    :param path: of the uncompressed archive
    :raises MkimageError: it is not a tar, or it is cut off
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.problems: list[str] = []  #: what a careful unpacker would refuse
        self.count = 0
        self._directories: dict[str, dict[str, Entry]] = {"/": {}}
        self._places: dict[str, tuple[int, int]] = {}  # real path -> offset and size in the archive
        self._file: IO[bytes] = path.open("rb")
        try:
            self._index()
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            self.close()
            raise MkimageError(
                f"{path} is not a complete tar archive: {error}", "build or download it again"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def _index(self) -> None:
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_TarInfo, errorlevel=2) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header; our index is smaller
                self.count += 1
                if self.count > _ENTRY_LIMIT:
                    raise tarfile.ReadError(f"it has more than {_ENTRY_LIMIT} entries")
                self._add(member)
                end = archive.offset
        self._file.seek(end)
        if self._file.read(512) != bytes(512):  # POSIX pax: an archive ends with two blocks of zeros
            raise tarfile.ReadError("its end is missing")

    def _add(self, member: tarfile.TarInfo) -> None:
        path = self._clean(member.name)
        if path is None or path == "/":
            return
        parent, name = posixpath.split(path)
        if not self._is_real_directory(parent):
            self._problem(f"{member.name!r} goes through something that is not a directory")
            return
        size = member.size if member.isreg() else 0
        mode = _TYPES.get(member.type, stat.S_IFREG) | stat.S_IMODE(member.mode)
        entry = Entry(mode, member.uid, member.gid, size, member.linkname if member.issym() else "")
        if member.islnk():
            original = self._original(member)
            if original is None:
                return
            entry, self._places[path] = original
        elif member.isreg():
            if member.issparse():
                self._problem(f"{member.name!r} is sparse, which container runtimes do not unpack")
            self._places[path] = (member.offset_data, member.size)
        self._directories.setdefault(parent, {})[name] = entry
        if member.isdir():
            self._directories.setdefault(path, {})

    def _original(self, member: tarfile.TarInfo) -> tuple[Entry, tuple[int, int]] | None:
        """Find what a hard link names; it must have come before."""
        target = self._clean(member.linkname)
        if target is None:
            return None
        parent, name = posixpath.split(target)
        entry = self._directories.get(parent, {}).get(name)
        if entry is None or target not in self._places:
            self._problem(f"{member.name!r} is a hard link to something that is not before it")
            return None
        return entry, self._places[target]

    def _clean(self, name: str) -> str | None:
        """Make a path of ours of a member's name; None when it leads elsewhere."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            self._problem(f"{name!r} leads out of the archive")
            return None
        if name.startswith("/"):
            self._problem(f"{name!r} is absolute")
        return "/" + "/".join(parts)

    def _is_real_directory(self, path: str) -> bool:
        """Tell whether all components are directories; those that have no entry of their own are."""
        while path != "/":
            parent, name = posixpath.split(path)
            entry = self._directories.get(parent, {}).get(name)
            if entry is not None and not entry.is_directory:
                return False
            if entry is None:
                self._directories.setdefault(parent, {})[name] = Entry(stat.S_IFDIR | 0o755, 0, 0, 0)
                self._directories.setdefault(path, {})
            path = parent
        return True

    def _problem(self, text: str) -> None:
        if len(self.problems) < _PROBLEM_LIMIT:
            self.problems.append(text)

    def _list(self, directory: str) -> Mapping[str, Entry]:
        return self._directories.get(directory, {})

    def _read(self, path: str, offset: int, size: int) -> bytes:
        start, length = self._places.get(path, (0, 0))
        self._file.seek(start + offset)
        content = self._file.read(min(size, max(0, length - offset)))
        if len(content) < size:
            raise TreeError(f"{path} cannot be read from the archive")
        return content
