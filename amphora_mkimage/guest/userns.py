"""Run a function in namespaces of its own, as root there and as nobody special outside.

The child is process 1 of a new pid namespace inside new user, mount, ipc and uts namespaces. So whatever it mounts is
invisible outside and gone with it, and whatever it starts dies with it: nothing has to be cleaned up by hand, even
after SIGKILL. Real file owners come from the id map: a subordinate range through newuidmap(1) for an ordinary user
(subuid(5)), the identity for root. See user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from amphora_mkimage import failures
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import id_maps
from amphora_mkimage.guest.id_maps import IdMap
from amphora_mkimage.process import UnwantedError

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 0x1, 0x20, 0x1000, 0x4000, 0x40000, 0x200000

#: The remedy when the kernel refuses without a reason; ``check`` looks for one.
SEE_CHECK = "run `amphora-mkimage check`"
#: How long a namespace may take to remove its working tree before it is killed.
_GRACE_SECONDS = 20.0
#: Added to the badness of what runs inside, in thousandths of the memory that is allowed.
_OOM_SCORE = 500

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
T = TypeVar("T")


def run(
    function: Callable[[], T],
    *,
    id_map: IdMap | None = None,
    on_end: Callable[[], None] = lambda: None,
    meanwhile: Callable[[int], None] = lambda _: None,
) -> T:
    """Call ``function`` in new namespaces and return what it returns.

    The function runs in a forked process and its result comes back pickled. A signal that interrupts the caller, or
    the caller's death, kills the whole namespace.

    :param id_map: from :func:`amphora_mkimage.guest.id_maps.plan`, when it was made already
    :param on_end: called inside at the very end, after everything else in there was killed, also when the caller has
        died
    :param meanwhile: called outside while the function runs, with a descriptor that can be read as soon as the function
        has ended; what it raises ends the namespace, but for UnwantedError, which leaves the say to the function
    :raises HostError: this host does not allow it
    :raises MkimageError: what the function raised, or that it was killed
    """
    id_map = id_map or id_maps.plan()
    result_read, result_write = os.pipe()
    go_read, go_write = os.pipe()  # closes when the caller dies; one byte is written when the id maps are set
    ready_read, ready_write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        for fd in (result_read, go_write, ready_read):
            os.close(fd)
        _outer_child(function, on_end, go_read, ready_write, result_write)
    for fd in (result_write, go_read, ready_write):
        os.close(fd)
    try:
        with open(ready_read, "rb") as ready, open(result_read, "rb") as result:  # noqa: PTH123 (descriptors)
            _set_maps(child, id_map, ready)
            os.write(go_write, b"g")
            with contextlib.suppress(UnwantedError):
                meanwhile(result_read)
            return cast(T, _receive(result))
    finally:
        os.close(go_write)
        _end(child)


def without_network() -> None:
    """Leave the network for good: this process and all its children see a loopback that is down."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare the network")


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a filesystem, as the system call does; errors are raised as OSError."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {kind or 'bind'} on {target}")


def unmount(target: Path) -> None:
    """Detach a mount (umount2, MNT_DETACH): it leaves the tree now, and ends when nothing uses it any more."""
    _check(_libc.umount2(os.fsencode(target), 2), f"unmount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")


def _outer_child(function: Callable[[], object], on_end: Callable[[], None], go: int, ready: int, result: int) -> None:
    """Enter the namespaces, fork process 1 and wait for it; never returns."""
    status = 1
    try:
        # Whoever waits for us outside shall be there to tell what happened. Now: in a user namespace, the file is
        # another's (proc_pid_oom_score_adj(5); proc(5) on processes that are not "dumpable").
        with contextlib.suppress(OSError):
            _first_to_be_killed()
        os.setsid()  # a terminal's Ctrl-C goes to the caller alone, which then ends us in an orderly way
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
        os.write(ready, b"r")
        os.close(ready)
        if os.read(go, 1) != b"g":
            os._exit(1)
        init = os.fork()
        if init == 0:
            _init(function, on_end, go, result)
        os.close(result)
        # Our own death must end the namespace too: process 1 watches the same pipe, see _watch_caller.
        _, wait_status = os.waitpid(init, 0)
        status = os.waitstatus_to_exitcode(wait_status) & 0xFF
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(ready, f"e{error.strerror}".encode())
    finally:
        os._exit(status)


def _init(function: Callable[[], object], on_end: Callable[[], None], go: int, result: int) -> None:
    """Be process 1 inside: run the function, send its result, clean up when the caller wants no more; never returns."""
    watched = threading.Event()

    def work() -> object:
        _settle()
        threading.Thread(target=_watch_caller, args=(go, on_end), daemon=True).start()
        watched.set()
        return function()

    try:
        # Whatever is wrong is part of the answer: from here, nothing is printed on the user's terminal.
        with contextlib.suppress(BrokenPipeError), open(result, "wb") as stream:  # the caller may be gone
            stream.write(_answer(work))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        if watched.is_set():
            # _watch_caller cleans up and ends this process. To leave here would cut that short: what it kills makes
            # the function return at once.
            threading.Event().wait()
        os._exit(1)


def _settle() -> None:
    """Become root of the new namespaces, in mounts that are nobody else's."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.umask(0o022)  # what is made here is a system's, not the user's
    with contextlib.suppress(OSError):
        os.setgroups([])  # refused where /proc/self/setgroups says deny
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def _first_to_be_killed() -> None:
    """Have the kernel choose this process and its children before its caller when memory runs out."""
    file = Path("/proc/self/oom_score_adj")
    file.write_text(str(min(1000, int(file.read_text(encoding="ascii")) + _OOM_SCORE)), encoding="ascii")


def _answer(function: Callable[[], object]) -> bytes:
    """Return what a function returned or raised, as :func:`_receive` reads it."""
    try:
        with failures.explained():
            return pickle.dumps(("value", function()))
    except MkimageError as error:
        return pickle.dumps(("error", error))
    except BaseException as error:  # the last frame of a process: nothing above could report it
        return pickle.dumps(("error", failures.defect(error)))


def _watch_caller(go: int, on_end: Callable[[], None]) -> None:
    """End the namespace when the caller is done or dead: then nobody holds the other end of the pipe."""
    if os.read(go, 1) == b"":
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # everything in the namespace but us
        try:
            on_end()
        finally:
            os._exit(0)


def _end(child: int) -> None:
    """Wait until the namespace is gone; it ends itself once the pipe is closed, and is killed when it does not."""
    deadline = time.monotonic() + _GRACE_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _set_maps(child: int, id_map: IdMap, ready: BinaryIO) -> None:
    answer = ready.read()
    if answer != b"r":
        reason = answer[1:].decode(errors="replace") or "the child died"
        raise HostError(f"this host does not allow user namespaces ({reason})", SEE_CHECK)
    id_maps.write(id_map, child)


def _receive(stream: BinaryIO) -> object:
    data = stream.read()
    if not data:
        raise MkimageError("the build process was killed", "look for the out-of-memory killer in dmesg")
    # The peer is our own forked child, so the pickle is as trusted as this process.
    kind, value = pickle.loads(data)  # noqa: S301
    if kind == "error":
        assert isinstance(value, MkimageError)
        raise value
    return value
