"""The bytes of an archive, from a file or from the program that decompresses it, never more than a limit.

The program runs as a child and writes into a pipe, so nothing of an archive is ever written down unbounded, and it is
killed in the middle when a limit passes or a member is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.unpack.kinds import DECOMPRESSORS
from amphora_mkimage.unpack.tar_format import printable

_CHUNK = 1 << 20
#: What any archive may unpack to, however small it is: a nearly empty filesystem compresses extremely well.
_RATIO_FLOOR = 64 << 20
#: Address space of a decompressor. The hungriest, xz with a block a thread, stays below its own limit of 1 GiB.
_ADDRESS_SPACE = 4 << 30

REMEDY = "check where it comes from and download it again, or use another image"


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    :param total: bytes, headers and padding included; that of a root filesystem in a cloud image is 1 to 4 GB
    :param members: files, directories and links
    :param ratio: times its own size, if it is compressed; root filesystems reach 3 to 10
    """

    total: int = 16 << 30
    members: int = 500_000
    ratio: int = 100


class Stream:
    """The archive's bytes in order; every failure is told with the archive's name.

    :param budget: bytes after which it is refused, and ``excess`` what to say then
    :param on_end: called at the end of the file; raises when it is not a good end
    """

    def __init__(self, title: str, file: IO[bytes], budget: int, excess: str, on_end: Callable[[], None]) -> None:
        self._title = title
        self._file = file
        self._left = budget
        self._excess = excess
        self._on_end = on_end

    def refusal(self, why: str) -> MkimageError:
        """Make the error for what is wrong with the archive."""
        return MkimageError(f"{self._title} is not unpacked: {why}", REMEDY)

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes.

        :raises MkimageError: it has less, or the limit is passed
        """
        self._take(size)
        content = self._file.read(size)
        if len(content) < size:
            self._on_end()
            raise self.refusal("it ends early")
        return content

    def copy(self, target: int, size: int) -> None:
        """Write the next ``size`` bytes to a descriptor.

        :raises MkimageError: as :meth:`read`; when the limit would be passed, before anything is written
        """
        if size > self._left:
            raise self.refusal(self._excess)
        while size:
            chunk = memoryview(self.read(min(size, _CHUNK)))
            size -= len(chunk)
            while chunk:
                chunk = chunk[os.write(target, chunk) :]

    def check_rest(self) -> None:
        """Read to the end; all must be zeros, and the decompressor must be content, too."""
        while chunk := self._file.read(_CHUNK):
            self._take(len(chunk))
            if chunk.count(0) != len(chunk):
                raise self.refusal("something follows the end of the archive")
        self._on_end()

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self.refusal(self._excess)


@contextlib.contextmanager
def open_tar(path: Path, limits: Limits, console: Console) -> Iterator[Stream]:
    """Open a tar, decompressed if need be.

    :raises HostError: the program that decompresses it is missing
    """
    # Unbuffered, because the program goes on where the descriptor stands.
    with path.open("rb", buffering=0) as file:
        head = file.read(max(map(len, DECOMPRESSORS)))
        file.seek(0)
        argv = next((argv for magic, argv in DECOMPRESSORS.items() if head.startswith(magic)), None)
        if argv is None:
            plain = io.BufferedReader(file, _CHUNK)
            yield Stream(path.name, plain, limits.total, _too_large(limits.total), lambda: None)
            return
        budget, excess = _budget(os.fstat(file.fileno()).st_size, limits)
        with _output_of(argv, file, path.name, console) as (output, check):
            yield Stream(path.name, output, budget, excess, check)


@contextlib.contextmanager
def open_squashfs(path: Path, limits: Limits, console: Console) -> Iterator[Stream]:
    """Open a squashfs as a tar.

    :raises HostError: sqfs2tar is missing
    """
    with path.open("rb") as file:
        budget, excess = _budget(os.fstat(file.fileno()).st_size, limits)
        # Without --root-becomes the root directory's own owner and mode are lost (sqfs2tar(1)).
        argv = ("sqfs2tar", "--root-becomes", ".", "/proc/self/fd/0")
        with _output_of(argv, file, path.name, console) as (output, check):
            yield Stream(path.name, output, budget, excess, check)


def _budget(size: int, limits: Limits) -> tuple[int, str]:
    by_ratio = max(size * limits.ratio, _RATIO_FLOOR)
    if by_ratio < limits.total:
        return by_ratio, f"it unpacks to more than {limits.ratio} times its size, as only decompression bombs do"
    return limits.total, _too_large(limits.total)


def _too_large(total: int) -> str:
    return f"it unpacks to more than {total / (1 << 30):.1f} GiB"


@contextlib.contextmanager
def _output_of(
    argv: Sequence[str], file: IO[bytes], title: str, console: Console
) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Run a program on a file; its output, and what raises at the output's end if the program failed."""
    program = argv[0]
    if shutil.which("prlimit"):
        argv = ["prlimit", f"--as={_ADDRESS_SPACE}", *argv]
    console.command(argv)
    if shutil.which(program, path=process.environment()["PATH"]) is None:
        raise HostError(f"{program} is not installed, which {title} needs", "run `amphora-mkimage check`")
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            argv,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=process.environment(),
            bufsize=_CHUNK,
            start_new_session=True,
        )
        assert child.stdout is not None

        def check() -> None:
            status = child.wait()
            stderr.seek(0)
            # It may name files of the archive, whose names may be anything.
            said = [printable(line) for line in stderr.read(4096).decode(errors="replace").strip().splitlines()]
            # bzip2 passes over garbage behind its data with a remark and status 0.
            if status != 0 or said:
                reason = said[-1] if said else f"{program} ended with status {status}"
                raise MkimageError(f"{title} is damaged: {reason}", REMEDY, tail=said)

        try:
            with child.stdout as output:
                # As much as a user may ask for (pipe(7)): fewer switches between the two programs.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(output.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK)
                yield output, check
        finally:
            process.kill_group(child)
