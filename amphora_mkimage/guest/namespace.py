"""The guest as a directory: file verbs on the tree, commands in a chroot of the current namespaces.

It runs inside :func:`amphora_mkimage.guest.userns.run`, so it is root there and every mount is private.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.paths import open_inside, split, walk

#: The whole environment of a command in the guest. Nothing of the host's leaks in: no proxy, no CA bundle, no HOME.
GUEST_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "SYSTEMD_OFFLINE": "1",
}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


class NamespaceGuest:
    """A :class:`~amphora_mkimage.guest.protocol.Guest` on a directory.

    :param root: the directory of the tree
    :param console: where commands are logged
    """

    def __init__(self, root: Path, console: Console) -> None:
        self.root = root
        self._console = console
        self._fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give up the descriptor of the tree."""
        os.close(self._fd)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Mount what commands need (/proc, /sys, /dev, /run, /tmp) for the time of the block."""
        targets: list[Path] = []

        def add(source: str, name: str, kind: str, flags: int = 0, data: str = "") -> None:
            # A look-up inside the tree, so that no link in it can move a mount elsewhere.
            fd = open_inside(self._fd, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                target = Path(f"/proc/self/fd/{fd}").readlink()
            finally:
                os.close(fd)
            userns.mount(source, target, kind, flags, data)
            targets.append(target)

        try:
            add("proc", "/proc", "proc")
            add("/sys", "/sys", "", userns.MS_BIND | userns.MS_REC)
            # Or packages would look at the firmware of this host, and could write to it (efivarfs).
            if Path("/sys/firmware").is_dir():
                add("tmpfs", "/sys/firmware", "tmpfs", userns.MS_RDONLY)
            for name, mode in (("/dev", "755"), ("/run", "755"), ("/tmp", "1777")):  # noqa: S108 (the guest's)
                add("tmpfs", name, "tmpfs", 0, f"mode={mode}")
            self._populate_dev()
            yield
        finally:
            for target in reversed(targets):
                userns.unmount(target)

    @contextlib.contextmanager
    def offered(self, source: Path, path: str) -> Iterator[None]:
        """Show a directory of the host in the guest, read-only, for the time of the block; inside :meth:`mounted`.

        :param path: in the guest; made, on a filesystem that is not the tree's
        """
        self.mkdir_p(path)
        target = self.root / path.strip("/")
        userns.mount(str(source), target, "", userns.MS_BIND)
        try:
            # Flags of the host's mount are locked in here and must be said again (mount_namespaces(7)).
            userns.mount("none", target, "", userns.MS_BIND | userns.MS_REMOUNT | userns.MS_RDONLY | _locked(source))
            yield
        finally:
            userns.unmount(target)

    def _populate_dev(self) -> None:
        dev = self.root / "dev"
        for name in _DEVICES:
            (dev / name).touch()
            userns.mount(f"/dev/{name}", dev / name, "", userns.MS_BIND)
        for name in ("pts", "shm"):
            (dev / name).mkdir()
        userns.mount("devpts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
        (dev / "shm").chmod(0o1777)
        for name, target in _DEVICE_LINKS.items():
            (dev / name).symlink_to(target)

    # -- file verbs, in the order of the protocol --------------------------------------------------------------------

    def write(self, path: str, content: bytes) -> None:
        """Create or truncate a file and write it."""
        self._put(path, content, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def write_append(self, path: str, content: bytes) -> None:
        """Append to a file."""
        self._put(path, content, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read_file(self, path: str) -> bytes:
        """Read a whole file."""
        with os.fdopen(open_inside(self._fd, path, os.O_RDONLY), "rb") as file:
            return file.read()

    def mkdir_p(self, path: str) -> None:
        """Create a directory and its parents."""
        made = ""
        for name in path.strip("/").split("/"):
            made += f"/{name}"
            if not self.exists(made):
                with self._parent(made) as (parent, last):
                    os.mkdir(last, 0o755, dir_fd=parent)

    def chmod(self, mode: int, path: str) -> None:
        """Change permission bits."""
        with self._opened(path) as handle:
            os.chmod(handle, mode)

    def chown(self, owner: int, group: int, path: str) -> None:
        """Change owner and group."""
        with self._opened(path) as handle:
            os.chown(handle, owner, group)

    def ln_sf(self, target: str, linkname: str) -> None:
        """Make a symbolic link."""
        with self._parent(linkname) as (parent, last):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=parent)
            os.symlink(target, last, dir_fd=parent)

    def mv(self, src: str, dest: str) -> None:
        """Rename a file."""
        with self._parent(src) as (src_parent, src_name), self._parent(dest) as (dest_parent, dest_name):
            os.rename(src_name, dest_name, src_dir_fd=src_parent, dst_dir_fd=dest_parent)

    def rm_f(self, path: str) -> None:
        """Remove a file if it exists."""
        with contextlib.suppress(FileNotFoundError), self._parent(path) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def rm_rf(self, path: str) -> None:
        """Remove a file or a tree."""
        with contextlib.suppress(FileNotFoundError), self._parent(path) as (parent, last):
            if stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(last, dir_fd=parent)
            else:
                os.unlink(last, dir_fd=parent)

    def truncate(self, path: str) -> None:
        """Empty a file."""
        os.close(open_inside(self._fd, path, os.O_WRONLY | os.O_TRUNC))

    def exists(self, path: str) -> bool:
        """Tell whether a path exists, links followed."""
        try:
            os.close(open_inside(self._fd, path, os.O_PATH))
        except OSError:
            return False
        return True

    def is_file(self, path: str) -> bool:
        """Tell whether a path itself is a regular file."""
        return stat.S_ISREG(self._mode(path))

    def is_dir(self, path: str) -> bool:
        """Tell whether a path itself is a directory."""
        return stat.S_ISDIR(self._mode(path))

    def is_symlink(self, path: str) -> bool:
        """Tell whether a path itself is a symbolic link."""
        return stat.S_ISLNK(self._mode(path))

    def readlink(self, path: str) -> str:
        """Read a symbolic link."""
        with self._parent(path) as (parent, last):
            return os.readlink(last, dir_fd=parent)

    def ls(self, directory: str) -> list[str]:
        """List a directory, sorted."""
        fd = open_inside(self._fd, directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def ls0(self, dir: str, filenames: str) -> None:  # noqa: A002 (libguestfs' name)
        """List a directory into a file of the host."""
        names = b"".join(os.fsencode(name) + b"\0" for name in self.ls(dir))
        Path(filenames).write_bytes(names)

    def lstatnslist(self, path: str, names: list[str]) -> list[dict[str, int]]:
        """Look at names in a directory."""
        with self._directory(path) as fd:
            return [_look(fd, name) for name in names]

    def readlinklist(self, path: str, names: list[str]) -> list[str]:
        """Read symbolic links in a directory."""
        with self._directory(path) as fd:
            return [_target(fd, name) for name in names]

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Read a part of a file."""
        fd = open_inside(self._fd, path, os.O_RDONLY | os.O_NONBLOCK)  # or a FIFO would wait for a writer
        try:
            return os.pread(fd, count, offset)
        finally:
            os.close(fd)

    def find(self, directory: str) -> list[str]:
        """List everything under a directory."""
        fd = open_inside(self._fd, directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = [f"{at}/{name}".lstrip("/") for at, found, _ in walk(fd) for name in found]
        finally:
            os.close(fd)
        return sorted(names)

    def glob_expand(self, pattern: str) -> list[str]:
        """Expand a shell pattern."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            found = [f"{base}/{name}" for base in found for name in self._matching(base or "/", part)]
        return sorted(found)

    def command(self, arguments: list[str]) -> str:
        """Run a program in the guest."""
        return process.run(
            ["chroot", os.fspath(self.root), *arguments],
            self._console,
            what=f"in the image: {program_of(arguments)}",
            env=GUEST_ENVIRONMENT,
        )

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _put(self, path: str, content: bytes, flags: int) -> None:
        with os.fdopen(open_inside(self._fd, path, flags, 0o644), "wb") as file:
            file.write(content)

    def _mode(self, path: str) -> int:
        try:
            fd = open_inside(self._fd, path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            return os.fstat(fd).st_mode
        finally:
            os.close(fd)

    def _matching(self, directory: str, part: str) -> list[str]:
        if not set("*?[") & set(part):
            return [part] if self.exists(f"{directory}/{part}") else []
        try:
            names = self.ls(directory)
        except (NotADirectoryError, FileNotFoundError):
            return []
        return [name for name in names if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= (part[0] == ".")]

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[str]:
        """Resolve a path inside the tree; give it as one that os functions follow exactly (/proc/self/fd, proc(5))."""
        fd = open_inside(self._fd, path, os.O_PATH)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        directory, name = split(path)
        with self._directory(directory) as fd:
            yield fd, name

    @contextlib.contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        fd = open_inside(self._fd, path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def program_of(arguments: Sequence[str]) -> str:
    """Return the name of the program that a command runs, behind env(1) and its variables, too."""
    words = itertools.dropwhile(lambda word: word == "env" or "=" in word, arguments)
    return next(words, arguments[0])


def _look(directory: int, name: str) -> dict[str, int]:
    """Return what lstat(2) says of a name in a directory, as libguestfs has it."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return {"st_ino": -1, "st_mode": 0, "st_uid": 0, "st_gid": 0, "st_size": 0}
    return {
        "st_ino": found.st_ino,
        "st_mode": found.st_mode,
        "st_uid": found.st_uid,
        "st_gid": found.st_gid,
        "st_size": found.st_size,
    }


def _target(directory: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return ""


def _locked(path: Path) -> int:
    """Give the flags of mount(2) that the filesystem of a path has, out of those that a namespace may not drop."""
    flags = os.statvfs(path).f_flag
    kept = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME  # the same bits in mount(2)
    return flags & kept | (userns.MS_RELATIME if flags & os.ST_RELATIME else 0)
