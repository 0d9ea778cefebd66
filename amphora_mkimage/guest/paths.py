"""Open paths inside a root filesystem without ever leaving it: openat2(2) with RESOLVE_IN_ROOT.

The tree comes from packages and archives that other people made; a symbolic link in it may point anywhere. The kernel
resolves each path as if the tree were "/", so ``/etc/resolv.conf -> /run/x`` means the guest's /run, and ``..`` stops
at its root.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
from collections.abc import Iterator

_SYS_OPENAT2 = 437  # the same number on every architecture (include/uapi/asm-generic/unistd.h)
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_RETRIES = 100

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_inside(root: int, path: str, flags: int, mode: int = 0, *, symlinks: bool = True) -> int:
    """Open a path inside the tree at descriptor ``root`` and return a descriptor.

    :param flags: as for open(2); O_CLOEXEC is added
    :param symlinks: follow symbolic links inside the tree; else they are an error (ELOOP)
    :raises OSError: as open(2), with the path as the guest knows it
    """
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if symlinks else _RESOLVE_NO_SYMLINKS)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES):
        fd: int = _libc.syscall(
            _SYS_OPENAT2, root, os.fsencode(path.lstrip("/") or "."), ctypes.byref(how), ctypes.sizeof(how)
        )
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EAGAIN:  # a rename raced with the look-up; openat2(2) says to try again
            break
    raise OSError(code, os.strerror(code), path)


def walk(root: int) -> Iterator[tuple[str, list[str], int]]:
    """Visit every directory of a tree, parents first: its path, the names in it, a descriptor valid until the next one.

    os.fwalk opens what a link to a directory points to, on the host, before it looks whether it is a link.

    :param root: descriptor of the tree
    """
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        directory = open_inside(root, path, os.O_RDONLY | os.O_DIRECTORY, symlinks=False)
        try:
            with os.scandir(directory) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            waiting += [f"{path.rstrip('/')}/{name}" for name, is_directory in kinds.items() if is_directory]
            yield path, list(kinds), directory
        finally:
            os.close(directory)


def split(path: str) -> tuple[str, str]:
    """Split an absolute path into its parent and its last component."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise ValueError(f"{path!r} does not name an entry of a directory")
    return parent or "/", name
