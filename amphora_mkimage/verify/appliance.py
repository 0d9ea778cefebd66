"""A disk image inside libguestfs' appliance: read-only, without network, for a limited time.

One launch serves all checks, and few calls: under emulation a call that runs a program in the appliance takes a third
of a second (``inspect-os`` as a whole twelve), one that the daemon answers itself ten milliseconds. So partitions are
read from the disk's own sectors, directories and files by the daemon's own calls, and the operating system is looked
for here (:mod:`amphora_mkimage.verify.guest_disk`).
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.console import Console
from amphora_mkimage.libguestfs import CallError, Session
from amphora_mkimage.verify.guest_tree import GuestTree
from amphora_mkimage.verify.tree import TreeError

#: For all that is done in an appliance: a whole verification takes a minute under emulation. A damaged filesystem can
#: keep a kernel or a checker busy for ever, and libguestfs itself waits without limit.
DEADLINE_SECONDS = 900.0
_MEMORY_MIB = 768
_LABEL = "image"
_SCRATCH_LABEL = "scratch"
#: Name of the scratch disk in the appliance's shell.
SCRATCH = f"/dev/disk/guestfs/{_SCRATCH_LABEL}"


class Appliance:
    """A running appliance with one disk to read; a context manager.

    :param path: of the image
    :param qemu_format: its format as qemu names it; never guessed, or a raw disk could pass for a qcow2
    :param scratch: a raw file that the appliance may write, as another disk
    :param tmpdir: directory for libguestfs' temporary files (default: TMPDIR)
    :raises HostError: libguestfs is missing or does not start
    """

    def __init__(
        self,
        path: Path,
        qemu_format: str,
        accelerator: Accelerator,
        console: Console,
        deadline: float = DEADLINE_SECONDS,
        scratch: Path | None = None,
        tmpdir: Path | None = None,
    ) -> None:
        self.device = "/dev/sda"
        self._session = Session(
            accelerator,
            console,
            deadline,
            memory_mib=_MEMORY_MIB,
            scratch=tmpdir,
            written=scratch,
            untrusted=True,
        )
        self.handle = self._session.handle
        try:
            self.handle.add_drive_opts(str(path.resolve()), readonly=True, format=qemu_format, label=_LABEL)
            if scratch is not None:
                options = {"format": "raw", "cachemode": "unsafe", "label": _SCRATCH_LABEL}
                self.handle.add_drive_opts(str(scratch.resolve()), **options)
            self._session.launch()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Appliance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the appliance, whatever state it is in."""
        self._session.close()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call libguestfs.

        :raises TreeError: it failed
        :raises MkimageError: the appliance is gone
        """
        try:
            return self._session.call(name, *arguments, **options)
        except CallError as error:
            raise TreeError(error.what) from error

    # What a tree reads with; the handle's own calls, each answered by the daemon itself.

    def ls0(self, dir: str, filenames: str) -> None:  # noqa: A002 (libguestfs' name)
        """List a directory into a file of this host."""
        self.call("ls0", dir, filenames)

    def lstatnslist(self, path: str, names: list[str]) -> list[dict[str, int]]:
        """Look at names in a directory."""
        return list(self.call("lstatnslist", path, names))

    def readlinklist(self, path: str, names: list[str]) -> list[str]:
        """Read symbolic links in a directory."""
        return list(self.call("readlinklist", path, names))

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Read a part of a file."""
        return bytes(self.call("pread", path, count, offset))

    def shell(self, command: str, *arguments: str) -> tuple[int, str]:
        """Run a command of the appliance's own, never of the guest's; its exit status and what it printed.

        :param command: for the appliance's shell, with ``"$1"`` and so on for ``arguments``
        :raises TreeError: it could not be run
        """
        try:
            status, printed = self._session.shell(command, *arguments)
        except CallError as error:
            raise TreeError(error.what) from error
        return status, printed.strip()

    def own_name(self, device: str) -> str:
        """Give a device's name in the appliance's shell.

        The kernel there probes disks in any order: its own sda may be the appliance's root. libguestfs' calls translate
        names, its shell does not; the label of the drive is a name for both (guestfs(3), "DISK LABELS").
        """
        if device.startswith(self.device):
            return f"/dev/disk/guestfs/{_LABEL}{device.removeprefix(self.device)}"
        return device

    def read_disk(self, offset: int, size: int) -> bytes:
        """Read from the disk itself."""
        try:
            return bytes(self.call("pread_device", self.device, size, offset))
        except TreeError:
            return b""  # beyond its end


class ApplianceTree(GuestTree):
    """The root filesystem that is mounted in an appliance."""

    def __init__(self, appliance: Appliance) -> None:
        super().__init__(appliance)
