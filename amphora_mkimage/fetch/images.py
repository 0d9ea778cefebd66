"""The cache of published root filesystems, beside the entries of :mod:`~amphora_mkimage.fetch.store`.

Layout under the cache directory::

    amphora-mkimage/images/<digest>-<file name>     complete and verified when it was put there
    amphora-mkimage/images/.partial-<key>           what has arrived of a download, locked while somebody writes to it
    amphora-mkimage/images/.partial-<key>.validator the server's name for the version that it is of

A partial becomes an entry by being renamed, after its content was hashed; a killed download leaves only the partial,
from which the next one goes on. An entry is hashed again on every use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch import store
from amphora_mkimage.fetch.checksums import Digest, digest_of

#: A partial that nobody went on with for so long is of an image that nobody wants any more.
_STALE_SECONDS = 7 * 24 * 3600
_POLL_SECONDS = 0.2


class Images:
    """The images in a cache directory.

    :param directory: ``-c``
    :param on_damage: called with a sentence when an entry is not what it was
    """

    def __init__(self, directory: Path, on_damage: Callable[[str], None]) -> None:
        self.root = directory / store.DIRECTORY / "images"
        self._on_damage = on_damage

    def prepare(self) -> None:
        """Make the directory, and remove partials that were left long ago."""
        store.make_directory(self.root)
        oldest = time.time() - _STALE_SECONDS
        for left in self.root.glob(".partial-*"):
            with contextlib.suppress(OSError):
                if left.suffix == ".validator":
                    stale = not left.with_suffix("").exists()
                else:
                    stale = left.stat().st_mtime < oldest
                if stale:
                    _remove_unlocked(left)

    def entry(self, digest: Digest, name: str) -> Path:
        """Path of an image, whether it is there or not; the file name is only there for people."""
        return self.root / f"{digest.hex}-{re.sub(r'[^A-Za-z0-9._+-]', '_', name)[-100:]}"

    def checked(self, digest: Digest, name: str) -> Path | None:
        """Path of an image that is there and whole; None when it is absent, or damaged and now removed."""
        path = self.entry(digest, name)
        try:
            if digest.matches(path):
                return path
        except FileNotFoundError:
            return None
        except OSError:
            pass  # what cannot be read is as good as damaged
        self._on_damage(f"the cached image {path} is damaged: it is removed and fetched again")
        with _writing(path):
            path.unlink(missing_ok=True)
        return None

    @contextlib.contextmanager
    def partial(self, key: str, *, known: bool, on_wait: Callable[[], None]) -> Iterator[Partial]:
        """Give the partial of a download, locked; wait while another process has it.

        :param key: what it will be: a digest, or a URL
        :param known: the digest is known, so that what goes wrong by resuming is noticed
        :param on_wait: called while waiting
        """
        path = self.root / f".partial-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        with _locked(path, on_wait) as file:
            partial = Partial(path, file, known=known)
            try:
                yield partial
            finally:
                if not partial.size:
                    partial.discard()


class Partial:
    """What has arrived of an image; a :class:`~amphora_mkimage.fetch.download.Target`."""

    def __init__(self, path: Path, file: FileIO, *, known: bool) -> None:
        self._path = path
        self._file = file
        self._known = known
        self._validator = path.with_name(f"{path.name}.validator")
        self.size = file.seek(0, os.SEEK_END)

    def resume(self) -> tuple[int, str]:
        """Go on with what has the same validator, or with anything where the digest will tell."""
        validator = ""
        with contextlib.suppress(OSError, UnicodeError):
            validator = self._validator.read_text(encoding="latin-1")
        if not re.fullmatch(r"[!-~]+(?: [!-~]+)*", validator):  # it goes into a header
            validator = ""
        return (self.size, validator) if validator or self._known else (0, "")

    def restart(self, validator: str) -> None:
        """Drop what is there, and remember of which version the next is."""
        with _writing(self._path):
            self._file.truncate(0)
            self._file.seek(0)
            self.size = 0
            if validator:
                self._validator.write_text(validator, encoding="latin-1")
            else:
                self._validator.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        with _writing(self._path):
            view = memoryview(chunk)
            while view:
                written = self._file.write(view)
                self.size += written
                view = view[written:]

    def digest(self, algorithm: str) -> Digest:
        """Hash what is there."""
        with self._path.open("rb") as file:
            return digest_of(file, algorithm)

    def publish(self, entry: Path) -> Path:
        """Make it an entry, whose content was verified; gives its path."""
        with _writing(self._path):
            # Without this a crash of the host can leave a complete name on incomplete content (rename(2), fsync(2)).
            os.fsync(self._file.fileno())
            self._path.replace(entry)
        self._validator.unlink(missing_ok=True)
        return entry

    def discard(self) -> None:
        """Remove it."""
        self._path.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[FileIO]:
    """Open a file and lock it: the one that is at the path then, not one that was renamed or removed meanwhile."""
    while True:
        with _writing(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with FileIO(fd, "r+b") as file:
            store.adopt(fd, path.parent)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                time.sleep(_POLL_SECONDS)
                continue
            if _is_at(fd, path):
                yield file
                return


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _remove_unlocked(path: Path) -> None:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever writes to it raises BlockingIOError here
        path.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MkimageError(
            f"cannot write {path}: {error.strerror}", "free some space where the cache is, or keep it elsewhere with -c"
        ) from error
