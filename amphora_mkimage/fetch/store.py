"""The cache: entries that are complete or absent, checked on every use, safe under parallel builds.

Layout under the cache directory, which may be shared with diskimage-builder's::

    amphora-mkimage/debs/<sha256>.deb           package files, by what they are
    amphora-mkimage/bases/<key>-<sha256>.tar.zst
                                                bootstrapped systems, by what they were made of and by what they are
    amphora-mkimage/wheels/<sha256>             the agent's Python packages, by what they are
    amphora-mkimage/locks/<key>                 which of them an agent of a branch takes, by what was asked for
    amphora-mkimage/rpms/<sha256>               packages that dnf fetched, by what they are
    amphora-mkimage/rpms/<key>.list             which of them a release's last build installed
    amphora-mkimage/images/                     published root filesystems, see :mod:`~amphora_mkimage.fetch.images`

It is one user's: a bootstrapped system is used by the name that its writer gave it, so nobody else may write there.
Root may use another user's cache; what it writes there is then that user's.

An entry is written under a temporary name that no reader looks at, and renamed. A damaged entry is removed when it is
found. No locks are needed: an entry's name has the hash of its content, so two writers never give one name to different
contents; but for the lists, of which the last one holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from amphora_mkimage import __version__
from amphora_mkimage.errors import BadValueError, MkimageError

#: In the cache directory, which others may use as well.
DIRECTORY = "amphora-mkimage"
#: Its directories.
_PARTS = ("debs", "bases", "wheels", "locks", "rpms", "images")
_COPY_BYTES = 1 << 20
#: A temporary file this old has no writer any more.
_STALE_SECONDS = 24 * 3600


class Store:
    """The cache directory.

    :param directory: ``-c``
    :param on_damage: called with a sentence when an entry is not what it was
    """

    def __init__(self, directory: Path, on_damage: Callable[[str], None]) -> None:
        self.root = directory / DIRECTORY
        self.debs = self.root / "debs"
        self.bases = self.root / "bases"
        self.wheels = self.root / "wheels"
        self.locks = self.root / "locks"
        self.rpms = self.root / "rpms"
        self._on_damage = on_damage

    def require_ours(self) -> None:
        """Refuse a cache that another user made, before any work.

        :raises BadValueError: naming the user
        """
        us = os.geteuid()
        if us == 0:
            return
        for directory in (self.root, *(self.root / name for name in _PARTS)):
            for look in (directory.lstat, directory.stat):
                try:
                    owner = look().st_uid
                except FileNotFoundError:
                    continue
                except PermissionError:
                    owner = -1
                if owner != us:
                    remedy = "name a cache of your own with -c"
                    raise BadValueError(f"-c: the cache {directory} belongs to {_user(owner)}", remedy)

    def prepare(self) -> None:
        """Make the directories, and remove what killed writers left long ago."""
        for directory in (self.debs, self.bases, self.wheels, self.locks, self.rpms):
            make_directory(directory)
            for left in directory.glob(".partial-*"):
                with contextlib.suppress(FileNotFoundError):
                    if left.stat().st_mtime < left.parent.stat().st_mtime - _STALE_SECONDS:
                        left.unlink()

    # -- package files -----------------------------------------------------------------------------------------------

    def has_deb(self, sha256: str) -> bool:
        """Tell whether a package file is there, unchecked (for the plan)."""
        return os.access(self._deb(sha256), os.R_OK)

    def take_deb(self, sha256: str, target: Path) -> bool:
        """Copy a package file out and check the copy; False when it is absent or damaged."""
        return self._take(self._deb(sha256), sha256, target)

    def _take(self, source: Path, sha256: str, target: Path) -> bool:
        try:
            file = source.open("rb")
        except (FileNotFoundError, PermissionError):
            return False
        with file, target.open("wb") as copy:
            found = copy_hashing(file, copy)
        if found == sha256:
            with contextlib.suppress(OSError):
                os.utime(source)
            return True
        if target.is_file():
            target.unlink()
        self._damaged(source)
        return False

    def put_deb(self, sha256: str, source: Path) -> None:
        """Add a package file that was verified."""
        if not self.has_deb(sha256):
            with self._writing(self.debs, self._deb(sha256).name) as entry, source.open("rb") as original:
                shutil.copyfileobj(original, entry.file, _COPY_BYTES)

    # -- Python packages ---------------------------------------------------------------------------------------------

    def has_wheel(self, sha256: str) -> bool:
        """Tell whether a Python package is there, checked; a damaged one is removed."""
        return self._take(self.wheels / sha256, sha256, Path(os.devnull))

    def take_wheel(self, sha256: str, target: Path) -> bool:
        """Copy a Python package out and check the copy; False when it is absent or damaged."""
        return self._take(self.wheels / sha256, sha256, target)

    def put_wheel(self, sha256: str, source: Path) -> None:
        """Add a Python package.

        :raises MkimageError: it is not what its hash says
        """
        make_directory(self.wheels)
        with self._writing(self.wheels, sha256) as entry, source.open("rb") as original:
            if copy_hashing(original, entry.file) != sha256:
                raise MkimageError(f"{source.name} is not what its hash in the lock file says")

    def remember(self, key: str, content: bytes) -> None:
        """Keep a small text under a key."""
        make_directory(self.locks)
        self._put(self.locks, key, _with_hash(content))

    def recall(self, key: str) -> bytes | None:
        """Give what was kept under a key and is what was written; None when it is absent or damaged."""
        return self._text(self.locks / key)

    # -- packages that dnf fetched -----------------------------------------------------------------------------------

    def rpm(self, sha256: str) -> bytes | None:
        """Give a package, checked; None when it is absent or damaged."""
        path = self.rpms / sha256
        try:
            content = path.read_bytes()
        except (FileNotFoundError, PermissionError):
            return None
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        self._damaged(path)
        return None

    def put_rpm(self, sha256: str, content: bytes) -> None:
        """Add a package that dnf verified."""
        if not os.access(self.rpms / sha256, os.R_OK):
            self._put(self.rpms, sha256, content)

    def rpm_list(self, key: str) -> bytes | None:
        """Give the list that :meth:`put_rpm_list` wrote last; None when it is absent or damaged."""
        return self._text(self.rpms / f"{key}.list")

    def put_rpm_list(self, key: str, content: bytes) -> None:
        """Write down, for the next build of the kind that the key stands for, which packages this one had."""
        self._put(self.rpms, f"{key}.list", _with_hash(content))

    # -- bootstrapped bases ------------------------------------------------------------------------------------------

    def has_base(self, key: str) -> bool:
        """Tell whether a base is there, unchecked (for the plan)."""
        return bool(self._bases(key))

    def checked_base(self, key: str) -> Path | None:
        """Path of a base that is there and is what was written; None when it is absent or damaged."""
        for path in self._bases(key):
            try:
                with path.open("rb") as file:
                    found = _digest(file)
            except (FileNotFoundError, PermissionError):
                continue  # another build found it damaged; or another user's, before a cache was one user's
            if path.name == _base_name(key, found):
                with contextlib.suppress(OSError):
                    os.utime(path)
                return path
            self._damaged(path)
        return None

    @contextlib.contextmanager
    def writing_base(self, key: str) -> Iterator[BinaryIO]:
        """Give a file to write a base to; it becomes an entry when the block ends without error."""
        with self._writing(self.bases) as entry:
            yield entry.file
            entry.file.flush()
            entry.file.seek(0)
            entry.name = _base_name(key, _digest(entry.file))

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _put(self, directory: Path, name: str, content: bytes) -> None:
        with self._writing(directory, name) as entry:
            entry.file.write(content)

    def _text(self, path: Path) -> bytes | None:
        """Give a text that was written with its hash; None when it is absent or damaged."""
        try:
            stored = path.read_bytes()
        except (FileNotFoundError, PermissionError):
            return None
        content = stored.partition(b"\n")[2]
        if stored == _with_hash(content):
            return content
        self._damaged(path)
        return None

    def _deb(self, sha256: str) -> Path:
        return self.debs / f"{sha256}.deb"

    def _bases(self, key: str) -> list[Path]:
        return sorted(self.bases.glob(_base_name(key, "*")))

    def _damaged(self, path: Path) -> None:
        self._on_damage(f"the cache entry {path} is damaged: it is removed and made again")
        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self, directory: Path, name: str = "") -> Iterator[_Entry]:
        """Give an entry to be; the name may be set as late as at the end of the block."""
        fd, temporary = tempfile.mkstemp(prefix=".partial-", dir=directory)
        try:
            adopt(fd, directory)
            with os.fdopen(fd, "w+b") as file:
                entry = _Entry(file, name)
                yield entry
                file.flush()
                # Without this a crash of the host can leave a complete name on incomplete content (rename(2),
                # fsync(2)).
                os.fsync(file.fileno())
            os.replace(temporary, directory / entry.name)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise


def make_directory(directory: Path) -> None:
    """Make a directory of the cache, and those above it."""
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        adopt(fd, directory.parent)
    finally:
        os.close(fd)


def adopt(fd: int, directory: Path) -> None:
    """Give what root made in the cache of another user to that user, who could not use it otherwise."""
    owner = directory.stat()
    if os.geteuid() == 0 != owner.st_uid:
        with contextlib.suppress(OSError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return "another user"


@dataclass
class _Entry:
    """A cache entry that is being written."""

    file: BinaryIO
    name: str


def _base_name(key: str, digest: str) -> str:
    return f"{key}-{digest}.tar.zst"


def key_of(*parts: str | bytes) -> str:
    """Give a cache key: a hash over everything that an entry is made of, and over this program's version."""
    digest = hashlib.sha256()
    for part in (__version__, *parts):
        digest.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return digest.hexdigest()[:32]


def copy_hashing(source: BinaryIO, target: BinaryIO) -> str:
    """Copy a file and give the SHA256 of what was copied, so that what was checked is what is used."""
    digest = hashlib.sha256()
    while chunk := source.read(_COPY_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _with_hash(content: bytes) -> bytes:
    """Write a text whose name does not tell what it is: after a line with its hash."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content
