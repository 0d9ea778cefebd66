"""A libguestfs appliance under control: bounded in time, ended by an interrupt, its failures told in our words.

libguestfs itself waits without limit, and of an appliance whose qemu was killed it says only that a read failed. Here
every call says which of the three happened: the call was refused, the appliance died, or time was up.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amphora_mkimage.accelerator import Accelerator, prepare_libguestfs
from amphora_mkimage.console import TAIL_LINES, Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.verify.watchdog import Watchdog

_INSTALL = "install the distribution's python3-guestfs; a virtual environment needs --system-site-packages to see it"
_DAMAGED = "the image may be damaged"
_MAX_PROCESSORS = 4


class CallError(MkimageError):
    """The appliance refused a call, and goes on."""


class Session:
    """A handle of libguestfs; a context manager. Drives are added to :attr:`handle` before :meth:`launch`.

    :param deadline: seconds that everything from :meth:`launch` to :meth:`close` may take
    :param memory_mib: of the appliance, unless the user chose with LIBGUESTFS_MEMSIZE
    :param network: give the appliance a network of its own, from which it reaches what this host reaches
    :param scratch: directory for libguestfs' temporary files (default: its own choice, TMPDIR)
    :param written: a file that the appliance will write; when its filesystem is full, the appliance is ended
    :param untrusted: it reads a disk that others made: should it hang or die, that is probably the disk's doing
    :raises HostError: libguestfs' binding is missing
    """

    def __init__(
        self,
        accelerator: Accelerator,
        console: Console,
        deadline: float,
        *,
        memory_mib: int,
        network: bool = False,
        scratch: Path | None = None,
        written: Path | None = None,
        untrusted: bool = False,
    ) -> None:
        try:
            import guestfs  # noqa: PLC0415 (hosts without it can still do all else)
        except ImportError as error:
            raise HostError("the Python binding of libguestfs is missing", _INSTALL) from error
        self.handle = guestfs.GuestFS(python_return_dict=True)
        self.deadline = deadline
        self._accelerator = accelerator
        self._console = console
        self._watchdog = Watchdog(deadline, written)
        self._untrusted = untrusted
        self._closed = False
        self._pending = ""
        self._printed: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        variables = prepare_libguestfs(accelerator)
        self.handle.parse_environment_list([f"{name}={value}" for name, value in variables.items()])
        if scratch is not None:
            # Not TMPDIR: the cached appliance would move with it, and be made anew for each build (guestfs(3)).
            self.handle.set_tmpdir(os.fspath(scratch))
        if "LIBGUESTFS_MEMSIZE" not in os.environ:
            self.handle.set_memsize(memory_mib)
        self.handle.set_network(network)
        self.handle.set_autosync(False)
        if not untrusted:
            self.handle.set_smp(min(_MAX_PROCESSORS, len(os.sched_getaffinity(0))))
            # Of a disk, the kernel prints names of any bytes; the binding takes nothing but UTF-8.
            self.handle.set_event_callback(self._hear, guestfs.EVENT_APPLIANCE)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def launch(self) -> None:
        """Start the appliance.

        :raises HostError: it does not start
        """
        try:
            with self._console.step(f"Starting the appliance ({'KVM' if self._accelerator.kvm else 'emulated'})"):
                self._watchdog.start()
                self.handle.launch()
        except RuntimeError as error:
            if self._watchdog.expired:
                raise HostError(f"the appliance did not start within {self.deadline:.0f} s") from error
            self._refuse_full_disk(error)
            lines = str(error).strip().splitlines()
            raise HostError(
                f"libguestfs cannot start its appliance: {lines[0]}",
                "run libguestfs-test-tool to see why (a kernel in /boot that is not readable is a common cause)",
                tail=lines,
            ) from error

    def close(self) -> None:
        """End the appliance, whatever state it is in; more than once does no harm."""
        if self._closed:
            return
        self._closed = True
        self._watchdog.stop()
        with contextlib.suppress(RuntimeError):
            self.handle.close()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call libguestfs.

        :raises CallError: it refused; the text is libguestfs'
        :raises MkimageError: the appliance is gone
        """
        try:
            return getattr(self.handle, name)(*arguments, **options)
        except (RuntimeError, UnicodeError) as error:  # UnicodeError: file names that are not UTF-8
            tail = tuple(self._printed)
            if self._watchdog.expired:
                raise self._late(tail) from error
            self._refuse_full_disk(error)
            if not self.handle.is_ready():
                remedy = _DAMAGED if self._untrusted else "look for the out-of-memory killer in dmesg"
                raise MkimageError("the appliance ended unexpectedly", remedy, tail=tail) from error
            raise CallError(f"{name}: {error}") from error

    def _late(self, tail: Sequence[str]) -> MkimageError:
        if self._untrusted:
            return MkimageError("the image kept the appliance busy for too long; it was stopped", _DAMAGED, tail=tail)
        what = f"the appliance was not done after {self.deadline:.0f} s, and was stopped"
        return MkimageError(what, "a faster host, or one with KVM, takes less time", tail=tail)

    def _refuse_full_disk(self, error: BaseException) -> None:
        if self._watchdog.full:
            what = "the disk is full that the appliance writes to"
            raise MkimageError(what, "free some space, or work elsewhere with -w") from error

    def shell(self, script: str, *arguments: str) -> tuple[int, str]:
        """Run a shell script in the appliance itself, not in the guest; its exit status and what it printed.

        ``debug sh`` is what libguestfs' maintainers use where there is no call; it takes a tenth of the time of
        ``command``, which mounts and unmounts five filesystems around each program.

        :param script: with ``"$1"`` and so on for ``arguments``
        """
        words = " ".join(shlex.quote(argument) for argument in arguments)
        text = f"set -- {words}\n(\n{script}\n) </dev/null 2>&1\nstatus=$?\necho\necho $status\n"
        output, _, status = str(self.call("debug", "sh", [text])).rstrip().rpartition("\n")
        return int(status) if status.isdigit() else -1, output.strip("\n")

    def _hear(self, _event: int, _handle: int, text: str, _array: object) -> None:
        """Take what the appliance's console says: progress, and the last words of one that dies."""
        *lines, self._pending = (self._pending + text).replace("\r", "").split("\n")
        for line in lines:
            if line.strip():
                self._printed.append(line)
                self._console.activity(line)
