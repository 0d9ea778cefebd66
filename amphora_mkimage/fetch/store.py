"""The cache: entries that are complete or absent, checked on every use, safe under parallel builds.

Layout under the cache directory, which may be shared with diskimage-builder's::

    amphora-mkimage/debs/<sha256>.deb           package files, by what they are
    amphora-mkimage/bases/<key>.tar.zst         bootstrapped systems, by what they were made of
    amphora-mkimage/bases/<key>.tar.zst.sha256
    amphora-mkimage/images/                     published root filesystems, see :mod:`~amphora_mkimage.fetch.images`

An entry is written under a temporary name that no reader looks at, and renamed. A damaged entry is removed when it is
found. No locks are needed: two writers of one entry write the same content, and a reader that sees the sum of one
beside the content of the other takes the entry for damaged and makes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_COPY_BYTES = 1 << 20
#: A temporary file this old has no writer any more.
_STALE_SECONDS = 24 * 3600


class Store:
    """The cache directory.

    :param directory: ``-c``
    :param on_damage: called with a sentence when an entry is not what it was
    """

    def __init__(self, directory: Path, on_damage: Callable[[str], None]) -> None:
        self.root = directory / "amphora-mkimage"
        self.debs = self.root / "debs"
        self.bases = self.root / "bases"
        self._on_damage = on_damage

    def prepare(self) -> None:
        """Make the directories, and remove what killed writers left long ago."""
        for directory in (self.debs, self.bases):
            directory.mkdir(parents=True, exist_ok=True)
            for left in directory.glob(".partial-*"):
                with contextlib.suppress(FileNotFoundError):
                    if left.stat().st_mtime < left.parent.stat().st_mtime - _STALE_SECONDS:
                        left.unlink()

    # -- package files -----------------------------------------------------------------------------------------------

    def has_deb(self, sha256: str) -> bool:
        """Tell whether a package file is there, unchecked (for the plan)."""
        return self._deb(sha256).exists()

    def take_deb(self, sha256: str, target: Path) -> bool:
        """Copy a package file out and check the copy; False when it is absent or damaged."""
        source = self._deb(sha256)
        try:
            with source.open("rb") as file, target.open("wb") as copy:
                found = copy_hashing(file, copy)
        except FileNotFoundError:
            return False
        if found == sha256:
            with contextlib.suppress(OSError):
                os.utime(source)
            return True
        target.unlink()
        self._damaged(source)
        return False

    def put_deb(self, sha256: str, source: Path) -> None:
        """Add a package file that was verified."""
        if not self.has_deb(sha256):
            with self._writing(self._deb(sha256)) as file, source.open("rb") as original:
                shutil.copyfileobj(original, file, _COPY_BYTES)

    # -- bootstrapped bases ------------------------------------------------------------------------------------------

    def base(self, key: str) -> Path:
        """Path of a base's entry, whether it is there or not."""
        return self.bases / f"{key}.tar.zst"

    def checked_base(self, key: str) -> Path | None:
        """Path of a base that is there and is what was written; None when it is absent or damaged."""
        path = self.base(key)
        try:
            expected = self._sum(path).read_text(encoding="ascii").strip()
            with path.open("rb") as file:
                found = _digest(file)
        except FileNotFoundError:
            return None
        if found != expected:
            self._damaged(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    @contextlib.contextmanager
    def writing_base(self, key: str) -> Iterator[BinaryIO]:
        """Give a file to write a base to; it becomes an entry when the block ends without error."""
        path = self.base(key)
        with self._writing(path) as file:
            yield file
            file.flush()
            file.seek(0)
            digest = _digest(file)
            with self._writing(self._sum(path)) as sum_file:
                sum_file.write(f"{digest}\n".encode())

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _deb(self, sha256: str) -> Path:
        return self.debs / f"{sha256}.deb"

    @staticmethod
    def _sum(path: Path) -> Path:
        return path.with_name(f"{path.name}.sha256")

    def _damaged(self, path: Path) -> None:
        self._on_damage(f"the cache entry {path} is damaged: it is removed and made again")
        path.unlink(missing_ok=True)
        self._sum(path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[BinaryIO]:
        fd, temporary = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
        try:
            with os.fdopen(fd, "w+b") as file:
                yield file
                file.flush()
                # Without this a crash of the host can leave a complete name on incomplete content (rename(2),
                # fsync(2)).
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise


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
