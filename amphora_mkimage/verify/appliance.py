"""A disk image inside libguestfs' appliance: read-only, without network, for a limited time.

One launch serves all checks, and few calls: under emulation a call that runs a program in the appliance takes a third
of a second (``inspect-os`` as a whole twelve), one that the daemon answers itself ten milliseconds. So partitions are
read from the disk's own sectors, directories and files by the daemon's own calls, and the operating system is looked
for here (:mod:`amphora_mkimage.verify.guest_disk`).
"""

from __future__ import annotations

import contextlib
import shlex
import stat
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amphora_mkimage.accelerator import Accelerator, prepare_libguestfs
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.verify.tree import Entry, Tree, TreeError
from amphora_mkimage.verify.watchdog import Watchdog

#: For all that is done in an appliance: a whole verification takes a minute under emulation. A damaged filesystem can
#: keep a kernel or a checker busy for ever, and libguestfs itself waits without limit.
DEADLINE_SECONDS = 900.0
_MEMORY_MIB = 768
_CHUNK = 2 << 20
_LABEL = "image"
_SCRATCH_LABEL = "scratch"
#: Name of the scratch disk in the appliance's shell.
SCRATCH = f"/dev/disk/guestfs/{_SCRATCH_LABEL}"
_INSTALL = "install the distribution's python3-guestfs; a virtual environment needs --system-site-packages to see it"


class Appliance:
    """A running appliance with one disk to read; a context manager.

    :param path: of the image
    :param qemu_format: its format as qemu names it; never guessed, or a raw disk could pass for a qcow2
    :param scratch: a raw file that the appliance may write, as another disk
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
    ) -> None:
        self.device = "/dev/sda"
        self.handle = _handle(accelerator)
        self._watchdog = Watchdog(deadline, scratch)
        try:
            self.handle.add_drive_opts(str(path.resolve()), readonly=True, format=qemu_format, label=_LABEL)
            if scratch is not None:
                options = {"format": "raw", "cachemode": "unsafe", "label": _SCRATCH_LABEL}
                self.handle.add_drive_opts(str(scratch.resolve()), **options)
            with console.step(f"Starting the appliance ({'KVM' if accelerator.kvm else 'emulated'})"):
                self._watchdog.start()
                self.handle.launch()
        except RuntimeError as error:
            self.close()
            if self._watchdog.expired:
                raise HostError(f"the appliance did not start within {deadline:.0f} s") from error
            lines = str(error).strip().splitlines()
            raise HostError(
                f"libguestfs cannot start its appliance: {lines[0]}",
                "run libguestfs-test-tool to see why (a kernel in /boot that is not readable is a common cause)",
                tail=lines,
            ) from error
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
        self._watchdog.stop()
        with contextlib.suppress(RuntimeError):
            self.handle.close()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call libguestfs.

        :raises TreeError: it failed
        :raises MkimageError: the appliance is gone
        """
        try:
            return getattr(self.handle, name)(*arguments, **options)
        except (RuntimeError, UnicodeError) as error:  # UnicodeError: file names that are not UTF-8
            if self._watchdog.expired:
                raise MkimageError(
                    "the image kept the appliance busy for too long; it was stopped", "the image may be damaged"
                ) from error
            if self._watchdog.full:
                raise MkimageError(
                    "the disk is full that the appliance writes to", "free some space, or work elsewhere with -w"
                ) from error
            if not self.handle.is_ready():
                raise MkimageError("the appliance ended unexpectedly", "the image may be damaged") from error
            raise TreeError(f"{name}: {error}") from error

    def shell(self, command: str, *arguments: str) -> tuple[int, str]:
        """Run a command of the appliance's own, never of the guest's; its exit status and what it printed.

        libguestfs has no call for a check that repairs nothing, nor for the content of an initramfs; ``debug sh`` is
        what its maintainers use.

        :param command: for the appliance's shell, with ``"$1"`` and so on for ``arguments``
        """
        words = " ".join(shlex.quote(argument) for argument in arguments)
        printed = str(
            self.call("debug", "sh", [f"set -- {words}; {{ {command}; }} 2>&1; status=$?; echo; echo $status"])
        )
        output, _, status = printed.rstrip().rpartition("\n")
        return int(status) if status.isdigit() else -1, output.strip()

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


def _handle(accelerator: Accelerator) -> Any:
    try:
        import guestfs  # noqa: PLC0415 (hosts without it can still do all else)
    except ImportError as error:
        raise HostError("the Python binding of libguestfs is missing", _INSTALL) from error
    handle = guestfs.GuestFS(python_return_dict=True)
    handle.parse_environment_list([f"{name}={value}" for name, value in prepare_libguestfs(accelerator).items()])
    handle.set_network(False)
    handle.set_memsize(_MEMORY_MIB)
    handle.set_autosync(False)
    return handle


class ApplianceTree(Tree):
    """The root filesystem that is mounted in an appliance."""

    def __init__(self, appliance: Appliance) -> None:
        super().__init__()
        self._appliance = appliance

    def _list(self, directory: str) -> Mapping[str, Entry]:
        names = self._appliance.call("ls", directory)
        if not names:
            return {}
        stats = self._appliance.call("lstatnslist", directory, names)
        links = [n for n, s in zip(names, stats, strict=True) if stat.S_ISLNK(s["st_mode"])]
        targets = dict(zip(links, self._appliance.call("readlinklist", directory, links), strict=True)) if links else {}
        return {
            name: Entry(s["st_mode"], s["st_uid"], s["st_gid"], s["st_size"], targets.get(name, ""))
            for name, s in zip(names, stats, strict=True)
            if s["st_ino"] != -1  # lstatnslist: it could not be looked at
        }

    def _read(self, path: str, offset: int, size: int) -> bytes:
        # One RPC message holds 4 MiB; pread is answered by the daemon itself, read_file runs a program.
        content = b""
        while len(content) < size:
            chunk = bytes(self._appliance.call("pread", path, min(size - len(content), _CHUNK), offset + len(content)))
            if not chunk:
                raise TreeError(f"{path} ends early")
            content += chunk
        return content
