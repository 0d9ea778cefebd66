"""Where a build works, inside its namespace if any: the tree, its snapshots in the cache, room for files of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import failures, guardian, process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest import paths, userns

_CACHE = "free some space where the cache is, or keep it elsewhere with -c"
_WORK = "free some space, or work elsewhere with -w"
_TAR = ["--numeric-owner", "--xattrs", "--xattrs-include=*"]


@dataclass(frozen=True)
class Workplace:
    """A directory of the build's own.

    :param directory: empty at the beginning
    :param store: the cache
    """

    directory: Path
    store: Store
    console: Console

    @property
    def tree(self) -> Path:
        """Root of the tree that becomes an amphora."""
        return self.directory / "tree"

    @property
    def base_tar(self) -> Path:
        """Where no tree can be made: a plain tar of it, for an appliance."""
        return self.directory / "base.tar"

    @contextlib.contextmanager
    def tmpfs(self, size: int) -> Iterator[None]:
        """Work in memory inside the block.

        :param size: bytes that are there; without it the kernel would take half of the host's memory, there or not
        :raises MkimageError: what failed in the block did because that memory is full
        """
        userns.mount("tmpfs", self.directory, "tmpfs", 0, f"mode=755,size={size}")
        try:
            yield
        except (MkimageError, OSError) as error:
            status = os.statvfs(self.directory)
            if status.f_bavail > status.f_blocks >> 6:
                raise
            told = error if isinstance(error, MkimageError) else failures.explain(error)
            what = f"the {size / (1 << 30):.1f} GiB of memory that are free are too little for this build: {told.what}"
            raise MkimageError(what, "build on disk with -f", tail=told.tail) from error

    def pack(self, key: str, directory: str = "/", name: str = ".") -> None:
        """Keep a snapshot of the tree, or of a part of it, in the cache.

        :param directory: of the tree
        :param name: what of that directory to keep
        """
        with self.store.writing_base(key) as file, self._opened(directory) as place:
            argv = ["tar", "--create", f"--directory=/proc/self/fd/{place}", *_TAR]
            argv += ["--use-compress-program=zstd -1 -T0", f"--file=/proc/self/fd/{file.fileno()}", name]
            fds = (file.fileno(), place)
            process.run(argv, self.console, what="cannot cache the base", remedy=_CACHE, pass_fds=fds)

    def unpack(self, kept: Path, directory: str = "/") -> None:
        """Make the tree, or that part of it, from a snapshot.

        :param kept: checked by :meth:`Store.checked_base`
        :param directory: of the tree, where that part is
        """
        self.tree.mkdir(exist_ok=True)
        with self._opened(directory) as place:
            argv = ["tar", "--extract", f"--directory=/proc/self/fd/{place}", *_TAR, "--preserve-permissions"]
            argv += ["--use-compress-program=zstd", f"--file={kept}"]
            process.run(argv, self.console, what="cannot unpack the cached base", pass_fds=(place,))

    @contextlib.contextmanager
    def _opened(self, directory: str) -> Iterator[int]:
        """Open a directory of the tree as the guest would find it: a link of the base's may lead to the host's else."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        root = os.open(self.tree, flags)
        try:
            place = paths.open_inside(root, directory, flags)
            try:
                yield place
            finally:
                os.close(place)
        finally:
            os.close(root)

    def compress(self, key: str) -> None:
        """Keep :attr:`base_tar` in the cache, as a snapshot like any other."""
        packed = self.directory / "base.tar.zst"
        argv = ["zstd", "-1", "-T0", "--quiet", os.fspath(self.base_tar), "-o", os.fspath(packed)]
        process.run(argv, self.console, what="cannot cache the base", remedy=_WORK)
        # Not by zstd itself: it removes the file that it is to write to, and makes a new one.
        with self.store.writing_base(key) as file, packed.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        packed.unlink()

    def decompress(self, kept: Path) -> None:
        """Make :attr:`base_tar` from a snapshot.

        :param kept: checked by :meth:`Store.checked_base`
        """
        argv = ["zstd", "--decompress", "--quiet", "--force", os.fspath(kept), "-o", os.fspath(self.base_tar)]
        process.run(argv, self.console, what="cannot unpack the cached base", remedy=_WORK)

    def extract(self, kept: Path, names: Sequence[str], target: Path) -> None:
        """Take some files or directories out of a snapshot.

        :param names: relative
        :param target: made
        :raises MkimageError: one is not there
        """
        target.mkdir()
        argv = ["tar", "--extract", f"--directory={target}", "--no-same-owner", "--no-same-permissions"]
        argv += ["--use-compress-program=zstd"]
        argv += [f"--file={kept}", *(f"./{name}" for name in names)]
        process.run(argv, self.console, what=f"the base image lacks one of {', '.join(names)}")

    def remove(self) -> None:
        """Remove the directory; called at the very end, also when the process outside has died."""
        with contextlib.suppress(OSError):
            userns.unmount(self.directory)
        guardian.remove(self.directory)
