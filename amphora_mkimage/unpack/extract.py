"""Write the members of an archive into a tree.

A tree is only written through directories that really are directories: each is opened by openat2(2) from the tree's
root, without following any symbolic link, and each name is made new in it. So it does not matter what links the archive
has or where they lead; links themselves stay as they are, because a root filesystem's lead all over it
(``/etc/alternatives``, ``/run``).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.paths import open_inside, walk
from amphora_mkimage.unpack import tar_format
from amphora_mkimage.unpack.stream import Limits, Stream, open_squashfs, open_tar
from amphora_mkimage.unpack.tar_format import FormatError, Member, shown

#: Extended attributes that belong to the image. Others belong to the system that it was packed on or for: SELinux
#: labels are set anew, IMA's and overlayfs' own mean nothing here, "trusted" needs the host's root (xattr(7)).
_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_USER_ATTRIBUTES = "user."

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
#: Not the archive's fault; :func:`amphora_mkimage.guest.userns.run` finds the words.
_TROUBLE_OF_THE_HOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EROFS, errno.EMFILE, errno.ENFILE)


def tar(path: Path, tree: Path, limits: Limits, console: Console) -> None:
    """Unpack a tar, plain or compressed, into an empty directory; run as root of a namespace with all ids.

    Owners, modes, times, capabilities and POSIX ACLs are those of the archive. Devices in ``/dev``, and FIFOs there and
    in ``/run``, are left out. After an error the directory holds a part.

    :raises MkimageError: the archive is damaged, or has what a root filesystem does not have; the member is named
    :raises HostError: the program that decompresses it is missing
    """
    with open_tar(path, limits, console) as stream:
        _Extraction(stream, tree, limits, console).run()


def squashfs(path: Path, tree: Path, limits: Limits, console: Console) -> None:
    """Unpack a squashfs; all as for :func:`tar`.

    It comes as a tar from sqfs2tar(1), which writes to nothing but a pipe, and not from unsquashfs(1), which writes a
    tree by itself and has been led out of it (CVE-2021-40153, CVE-2021-41072). So the same rules hold for both.
    """
    with open_squashfs(path, limits, console) as stream:
        _Extraction(stream, tree, limits, console).run()


class _Extraction:
    def __init__(self, stream: Stream, tree: Path, limits: Limits, console: Console) -> None:
        self._stream = stream
        self._limits = limits
        self._console = console
        self._tree = tree
        self._root = -1
        self._made = 0
        self._attributes_lost = 0
        # The directory of the last member and its descriptor: members come directory by directory.
        self._parent: list[str] = []
        self._parent_fd = -1
        #: Members that are directories, by inode: what they have is set last, see _finish_directories.
        self._directories: dict[int, Member] = {}

    def run(self) -> None:
        """Write everything."""
        if any(self._tree.iterdir()):
            raise MkimageError(f"{self._tree} is not empty")
        self._root = os.open(self._tree, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._parent_fd = os.dup(self._root)
        try:
            try:
                for member in tar_format.members(self._stream):
                    self._count()
                    self._console.activity(f"{self._made} files")
                    self._write(member)
            except FormatError as error:
                raise self._stream.refusal(str(error)) from error
            self._finish_directories()
        finally:
            os.close(self._parent_fd)
            os.close(self._root)
        if self._attributes_lost:
            self._console.note(f"{self._attributes_lost} user attributes are left out: the filesystem has none")

    def _count(self) -> None:
        self._made += 1
        if self._made > self._limits.members:
            raise self._stream.refusal(f"it has more than {self._limits.members} files")

    # -- members --------------------------------------------------------------------------------------------------

    def _write(self, member: Member) -> None:
        """Write a member; what goes wrong is told with its name."""
        try:
            if not member.parts:
                self._directories[os.fstat(self._root).st_ino] = member
                return
            if member.type in (tar_format.CHARACTER, tar_format.BLOCK_DEVICE, tar_format.FIFO):
                check_special(member)
                return
            self._enter(member.parts[:-1])
            _WRITERS[member.type](self, member, member.parts[-1])
        except FileExistsError:
            raise FormatError(f"member {shown(member.name)} comes twice") from None
        except FormatError as error:
            raise FormatError(f"member {shown(member.name)} {error}") from error
        except OSError as error:
            if error.errno in _TROUBLE_OF_THE_HOST:
                raise
            raise FormatError(f"member {shown(member.name)}: {error.strerror}") from error

    def _write_file(self, member: Member, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=self._parent_fd)
        try:
            self._stream.copy(file, member.size)
            self._dress(file, member)
        finally:
            os.close(file)

    def _write_symlink(self, member: Member, name: str) -> None:
        parent = self._parent_fd
        os.symlink(member.link, name, dir_fd=parent)
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _write_link(self, member: Member, name: str) -> None:
        """Make another name of something earlier: of a file, or of a symbolic link itself (linkat(2) without flags)."""
        parts = tar_format.split(member.link, "links to what")
        try:
            source = open_inside(self._root, "/".join(parts[:-1]), _DIRECTORY, symlinks=False)
            try:
                os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=self._parent_fd, follow_symlinks=False)
            finally:
                os.close(source)
        except FileExistsError:
            raise
        except (OSError, IndexError):
            raise FormatError(
                f"is a hard link to {shown(member.link)}, which is not a file that comes before it"
            ) from None

    def _write_directory(self, member: Member, name: str) -> None:
        # It may be there: its children can come before it. O_NOFOLLOW: or else it is something of this name.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._parent_fd)
        try:
            directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._parent_fd)
        except NotADirectoryError:
            raise FormatError("comes twice, first as something else") from None
        self._directories[os.fstat(directory).st_ino] = member
        self._stand_in(directory, member.parts)  # what follows is probably in it

    # -- directories ----------------------------------------------------------------------------------------------

    def _enter(self, parts: list[str]) -> None:
        """Open the directory that a member is in; make it first if no member was it."""
        if parts == self._parent:
            return
        path = "/".join(parts)
        try:
            directory = open_inside(self._root, path, _DIRECTORY, symlinks=False)
        except FileNotFoundError:
            directory = self._make_parents(parts)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise FormatError("lies below a symbolic link or something else that is not a directory") from None
        self._stand_in(directory, parts)

    def _stand_in(self, directory: int, parts: list[str]) -> None:
        os.close(self._parent_fd)
        self._parent_fd, self._parent = directory, parts

    def _make_parents(self, parts: list[str]) -> int:
        """Make what is missing of a directory, one component after the other; give the last one's descriptor."""
        directory = os.dup(self._root)
        for part in parts:
            above = directory
            try:
                try:
                    os.mkdir(part, 0o700, dir_fd=above)
                    self._count()
                except FileExistsError:
                    pass
                directory = os.open(part, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            finally:
                os.close(above)
        return directory

    def _finish_directories(self) -> None:
        """Set what directories have, now that nothing is written any more: times, and ACLs that children inherit."""
        for path, _, directory in walk(self._root):
            member = self._directories.get(os.fstat(directory).st_ino)
            if member is None:
                os.fchmod(directory, 0o755)
                continue
            try:
                self._dress(directory, member)
            except OSError as error:
                raise self._stream.refusal(f"member {shown(path)}: {error.strerror}") from error

    # -- metadata -------------------------------------------------------------------------------------------------

    def _dress(self, file: int, member: Member) -> None:
        """Set owner, mode, attributes and times, in this order: chown(2) takes setuid and capabilities away."""
        os.fchown(file, member.uid, member.gid)
        os.fchmod(file, member.mode)
        for name, value in member.xattrs.items():
            if name.startswith(_USER_ATTRIBUTES):
                self._set_user_attribute(file, name, value)
            elif is_kept(name):
                os.setxattr(file, name, value)
        os.utime(file, ns=(member.mtime, member.mtime))

    def _set_user_attribute(self, file: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(file, name, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:  # a tmpfs has them since Linux 6.6
                raise
            self._attributes_lost += 1


def is_kept(attribute: str) -> bool:
    """Tell whether an extended attribute is the image's own."""
    return attribute in _ATTRIBUTES or attribute.startswith(_USER_ATTRIBUTES)


def check_special(member: Member) -> None:
    """Devices and FIFOs are made at boot where a system has them; anywhere else they are not a root filesystem's.

    :raises FormatError: it is somewhere else
    """
    top = member.parts[0]
    if top == "dev" or (top == "run" and member.type == tar_format.FIFO):
        return
    raise FormatError("is a FIFO" if member.type == tar_format.FIFO else "is a device node")


_WRITERS: dict[bytes, Callable[[_Extraction, Member, str], None]] = {
    tar_format.REGULAR: _Extraction._write_file,
    tar_format.SYMLINK: _Extraction._write_symlink,
    tar_format.HARD_LINK: _Extraction._write_link,
    tar_format.DIRECTORY: _Extraction._write_directory,
}
