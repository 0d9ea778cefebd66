"""The verbs with which stages act on a root filesystem: a small subset of ``guestfs.GuestFS``, same names and meaning.

A libguestfs handle satisfies this protocol as it is (``tests/unit/test_guest_protocol.py``), so a stage never knows
which guest it runs in. The meaning of each verb is that of guestfs(3); paths are absolute inside the guest, and
symbolic links resolve inside it.
"""

from __future__ import annotations

from typing import Protocol


class Guest(Protocol):
    """A root filesystem that can be changed and in which commands can be run."""

    def write(self, path: str, content: bytes) -> None:
        """Create or truncate a file (mode 0644 when new) and write it."""

    def write_append(self, path: str, content: bytes) -> None:
        """Append to a file, creating it where needed."""

    def read_file(self, path: str) -> bytes:
        """Read a whole file."""

    def mkdir_p(self, path: str) -> None:
        """Create a directory and its parents (mode 0755 each)."""

    def chmod(self, mode: int, path: str) -> None:
        """Change permission bits."""

    def chown(self, owner: int, group: int, path: str) -> None:
        """Change the numeric owner and group."""

    def ln_sf(self, target: str, linkname: str) -> None:
        """Make a symbolic link, replacing what stands there unless it is a directory."""

    def mv(self, src: str, dest: str) -> None:
        """Rename a file."""

    def rm_f(self, path: str) -> None:
        """Remove a file if it exists."""

    def rm_rf(self, path: str) -> None:
        """Remove a file or a tree, never following links."""

    def truncate(self, path: str) -> None:
        """Empty a file."""

    def exists(self, path: str) -> bool:
        """Tell whether a path, its links followed, exists."""

    def is_file(self, path: str) -> bool:
        """Tell whether a path itself is a regular file."""

    def is_dir(self, path: str) -> bool:
        """Tell whether a path itself is a directory."""

    def is_symlink(self, path: str) -> bool:
        """Tell whether a path itself is a symbolic link."""

    def readlink(self, path: str) -> str:
        """Read a symbolic link."""

    def ls(self, directory: str) -> list[str]:
        """List a directory, sorted, without . and .. ."""

    def ls0(self, dir: str, filenames: str) -> None:  # noqa: A002 (libguestfs' name)
        """List a directory into a file of the host, a NUL after each name, whatever its bytes."""

    def lstatnslist(self, path: str, names: list[str]) -> list[dict[str, int]]:
        """Look at names in a directory, links not followed (``st_ino`` -1: it could not be looked at)."""

    def readlinklist(self, path: str, names: list[str]) -> list[str]:
        """Read symbolic links in a directory ("" for what is not one)."""

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Read a part of a file; less than ``count`` bytes only at its end."""

    def find(self, directory: str) -> list[str]:
        """List everything under a directory, relative to it, sorted."""

    def glob_expand(self, pattern: str) -> list[str]:
        """Expand a shell pattern to the sorted paths that match."""

    def command(self, arguments: list[str]) -> str:
        """Run a program in the guest; its standard output, or an error when its status is not 0."""
