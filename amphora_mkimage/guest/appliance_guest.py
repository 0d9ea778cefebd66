"""The guest as a filesystem that is mounted in libguestfs' appliance: its handle, with what stages rely on made exact.

The verbs are the handle's own. What is added: failures as :class:`~amphora_mkimage.errors.MkimageError`, truth values
as bool, file names without the slashes that libguestfs leaves on them, and commands in the same surroundings as in
:class:`~amphora_mkimage.guest.namespace.NamespaceGuest`.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from amphora_mkimage.console import TAIL_LINES, Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest.namespace import GUEST_ENVIRONMENT, program_of
from amphora_mkimage.libguestfs import CallError, Session

#: Where libguestfs' daemon mounts the guest, for the appliance's own programs.
ROOT = "/sysroot"
_SCRIPTS = Path(__file__).with_name("files")
#: One message of libguestfs holds 4 MiB (guestfs(3), "PROTOCOL LIMITS").
_CHUNK = 2 << 20
_OUTPUT_LIMIT = 1 << 20
#: The last is rpm's.
_FULL = re.compile(r"No space left on device|not enough free space|more space (needed )?on the /", re.IGNORECASE)


class ApplianceGuest:
    """A :class:`~amphora_mkimage.guest.protocol.Guest` in an appliance, where its root filesystem is mounted.

    Every verb raises :class:`~amphora_mkimage.errors.MkimageError`: BadValueError when the disk is full.

    :param session: launched
    :param console: where commands are logged
    """

    def __init__(self, session: Session, console: Console) -> None:
        self._session = session
        self._console = console

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Mount what commands need (/proc, /sys, /dev, /run, /tmp) for the time of the block."""
        self.script("mount", ROOT, what="cannot mount what commands in the image need")
        try:
            yield
        finally:
            # After a failure the appliance may be gone, and is of no more use.
            with contextlib.suppress(MkimageError):
                self.script("unmount", ROOT, what="cannot unmount what commands in the image needed")

    @contextlib.contextmanager
    def attached(self, device: str, path: str, *, writable: bool = False) -> Iterator[None]:
        """Mount a device of the appliance at a path in the guest, for the time of the block.

        :param path: absolute; made where needed, so best under /run, of which nothing stays
        """
        self.mkdir_p(path)
        options = f"{'rw' if writable else 'ro'},nodev,nosuid"
        with self._mount(["-o", options, device], path, "the files of the host"):
            yield

    @contextlib.contextmanager
    def bare(self, path: str) -> Iterator[None]:
        """Show the root filesystem once more, without what is mounted in it, for the time of the block.

        :param path: as for :meth:`attached`
        """
        self.mkdir_p(path)
        with self._mount(["--bind", ROOT], path, "the root filesystem once more"):
            yield

    @contextlib.contextmanager
    def _mount(self, words: Sequence[str], path: str, what: str) -> Iterator[None]:
        place = ROOT + path
        self._shell('mount "$@"', *words, place, what=f"cannot mount {what}")
        try:
            yield
        finally:
            with contextlib.suppress(MkimageError):
                self._shell('umount "$1"', place, what=f"cannot unmount {what}")

    # -- verbs, in the order of the protocol -------------------------------------------------------------------------

    def write(self, path: str, content: bytes) -> None:
        """Create or truncate a file and write it."""
        self._call("write", path, content)

    def write_append(self, path: str, content: bytes) -> None:
        """Append to a file."""
        for start in range(0, len(content) or 1, _CHUNK):
            self._call("write_append", path, content[start : start + _CHUNK])

    def read_file(self, path: str) -> bytes:
        """Read a whole file."""
        # libguestfs' read_file starts a program and a transfer, half a second under emulation; this is answered by the
        # daemon itself.
        content = b""
        while chunk := bytes(self._call("pread", path, _CHUNK, len(content))):
            content += chunk
        return content

    def mkdir_p(self, path: str) -> None:
        """Create a directory and its parents."""
        self._call("mkdir_p", path)

    def chmod(self, mode: int, path: str) -> None:
        """Change permission bits."""
        self._call("chmod", mode, path)

    def chown(self, owner: int, group: int, path: str) -> None:
        """Change owner and group."""
        self._call("chown", owner, group, path)

    def ln_sf(self, target: str, linkname: str) -> None:
        """Make a symbolic link."""
        if self.is_symlink(linkname):
            self.rm_f(
                linkname
            )  # ln(1), which libguestfs runs, would put the new link into a directory that it leads to
        self._call("ln_sf", target, linkname)

    def mv(self, src: str, dest: str) -> None:
        """Rename a file."""
        self._call("mv", src, dest)

    def rm_f(self, path: str) -> None:
        """Remove a file if it exists."""
        self._call("rm_f", path)

    def rm_rf(self, path: str) -> None:
        """Remove a file or a tree."""
        self._call("rm_rf", path)

    def truncate(self, path: str) -> None:
        """Empty a file."""
        self._call("truncate", path)

    def exists(self, path: str) -> bool:
        """Tell whether a path exists, links followed."""
        # libguestfs' exists is true of a link that leads nowhere.
        try:
            self._session.call("realpath", path)
        except CallError:
            return False
        return True

    def is_file(self, path: str) -> bool:
        """Tell whether a path itself is a regular file."""
        return bool(self._call("is_file", path))

    def is_dir(self, path: str) -> bool:
        """Tell whether a path itself is a directory."""
        return bool(self._call("is_dir", path))

    def is_symlink(self, path: str) -> bool:
        """Tell whether a path itself is a symbolic link."""
        return bool(self._call("is_symlink", path))

    def readlink(self, path: str) -> str:
        """Read a symbolic link."""
        return str(self._call("readlink", path))

    def ls(self, directory: str) -> list[str]:
        """List a directory, sorted."""
        return sorted(self._call("ls", directory))

    def ls0(self, dir: str, filenames: str) -> None:  # noqa: A002 (libguestfs' name)
        """List a directory into a file of the host."""
        self._call("ls0", dir, filenames)

    def lstatnslist(self, path: str, names: list[str]) -> list[dict[str, int]]:
        """Look at names in a directory."""
        return list(self._call("lstatnslist", path, names))

    def readlinklist(self, path: str, names: list[str]) -> list[str]:
        """Read symbolic links in a directory."""
        return list(self._call("readlinklist", path, names))

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Read a part of a file."""
        return bytes(self._call("pread", path, count, offset))

    def find(self, directory: str) -> list[str]:
        """List everything under a directory."""
        return sorted(name.lstrip("/") for name in self._call("find", self._call("realpath", directory)))

    def glob_expand(self, pattern: str) -> list[str]:
        """Expand a shell pattern."""
        return sorted(self._call("glob_expand", pattern, directoryslash=False))

    def command(self, arguments: list[str]) -> str:
        """Run a program in the guest."""
        self._console.command(["chroot", ROOT, *arguments])
        variables = [f"{name}={value}" for name, value in GUEST_ENVIRONMENT.items()]
        argv = ["env", "-i", *variables, "chroot", ROOT, *arguments]
        what = f"in the image: {program_of(arguments)}"
        return self.script("command", ROOT, str(_OUTPUT_LIMIT), *argv, what=what, decode=_decode)

    # -- the appliance's own programs ----------------------------------------------------------------------------------

    def script(self, name: str, *arguments: str, what: str, decode: Callable[[str], str] = str) -> str:
        """Run one of the shell scripts under ``files/`` in the appliance; what it printed.

        :param what: what failed, for the error
        :param decode: makes text of what it printed
        """
        return self._shell((_SCRIPTS / name).read_text(encoding="ascii"), *arguments, what=what, decode=decode)

    def _shell(self, script: str, *arguments: str, what: str, decode: Callable[[str], str] = str) -> str:
        try:
            status, printed = self._session.shell(script, *arguments)
        except CallError as error:
            raise MkimageError(f"{what}: {error.what}") from error
        output = decode(printed)
        lines = output.splitlines()
        for line in lines:
            self._console.output(line)
        if status != 0:
            raise _failure(f"{what}: exited with status {status}", lines[-TAIL_LINES:])
        return output

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return self._session.call(name, *arguments, **options)
        except CallError as error:
            what = f"in the image: {error.what}"
            # Of a large file that did not fit, libguestfs says no more than this.
            if "write error" in what and self._full():
                what += ": No space left on device"
            raise _failure(what, ()) from error

    def _full(self) -> bool:
        space = self._session.call("statvfs", "/")
        return bool(space["bavail"] * space["frsize"] < _CHUNK)


def _decode(printed: str) -> str:
    """Decode what a command printed, with line ends and errors as :func:`amphora_mkimage.process.run` treats them."""
    text = base64.b64decode(printed).decode(errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _failure(what: str, tail: Sequence[str]) -> MkimageError:
    if any(_FULL.search(line) for line in (what, *tail)):
        return BadValueError("-s: the content does not fit on the disk", "choose a larger size", tail=tail)
    return MkimageError(what, tail=tail)
