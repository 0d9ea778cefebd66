"""Output files that appear complete, all together, or not at all.

Each is written to a file without a name (O_TMPFILE, open(2)) in the directory where it will stand, and gets its name
when the whole build is done. So a build that is killed, even by SIGKILL, leaves nothing behind. Filesystems without
O_TMPFILE (NFS) get a hidden name instead, which only SIGKILL leaves behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from amphora_mkimage.errors import BadValueError

_SUMS = "SHA256SUMS"
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


class Output:
    """One file to be.

    :param path: where it will stand
    :raises BadValueError: nothing can be written there
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self._hidden: Path | None = None
        try:
            self.fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError:
            try:
                self.fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
            except OSError as error:
                raise BadValueError(f"cannot write in {path.parent}: {error.strerror}") from error
            self._hidden = Path(name)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(self.fd, 0o666 & ~umask)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self.fd).st_size

    def hash(self) -> str:
        """Read the file back and give its SHA256."""
        digest = hashlib.sha256()
        os.lseek(self.fd, 0, os.SEEK_SET)
        while chunk := os.read(self.fd, 1 << 20):
            digest.update(chunk)
        self.sha256 = digest.hexdigest()
        return self.sha256

    def write(self, data: bytes) -> None:
        """Write the whole content."""
        with open(self.fd, "wb", closefd=False) as file:
            file.write(data)

    def publish(self) -> None:
        """Give the file its name, in place of what has it now."""
        os.fsync(self.fd)
        if self._hidden is None:
            # linkat(2) does not replace; rename(2) does.
            temporary = self.path.with_name(f".{self.path.name}-{os.getpid()}")
            # src_dir_fd, ignored for an absolute path, makes Python call linkat(2) with AT_SYMLINK_FOLLOW.
            os.link(f"/proc/self/fd/{self.fd}", temporary, src_dir_fd=self.fd, follow_symlinks=True)
        else:
            temporary, self._hidden = self._hidden, None
        temporary.replace(self.path)

    def close(self) -> None:
        """Give up what was not published."""
        os.close(self.fd)
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)


@contextlib.contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Keep other builds from publishing into the same directory for the time of the block (flock(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def keep_old(path: Path) -> Path | None:
    """Rename an existing image, and its manifest, to NAME-DATE.SUFFIX, as DIB does; gives the new path."""
    if not path.exists():
        return None
    stamp = time.strftime("%Y.%m.%d-%H.%M.%S", time.localtime(path.stat().st_mtime))
    kept = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    path.rename(kept)
    manifest = manifest_path(path)
    if manifest.exists():
        manifest.rename(manifest_path(kept))
    return kept


def manifest_path(image: Path) -> Path:
    """Give the manifest's place beside an image."""
    return image.with_name(f"{image.name}.manifest.json")


def record_sums(directory: Path, sums: dict[str, str], renamed: dict[str, str]) -> None:
    """Bring the SHA256SUMS of a directory up to date, keeping the lines of other files (sha256sum(1), --check).

    :param sums: hash by file name
    :param renamed: old name to new name of files that were kept under another
    """
    path = directory / _SUMS
    # Names have any bytes; lines of other kinds (binary mode, BSD's, comments) are somebody's, too.
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if path.exists() else []
    split = [(line, _SUM.fullmatch(line)) for line in lines]
    others = [line for line, match in split if match is None]
    known = {match[2]: match[1] for _, match in split if match is not None}
    known = {renamed.get(name, name): digest for name, digest in known.items()}
    known.update(sums)
    output = Output(path)
    try:
        others += [f"{digest}  {name}" for name, digest in sorted(known.items())]
        output.write("".join(f"{line}\n" for line in others).encode(errors="surrogateescape"))
        output.publish()
    finally:
        output.close()
