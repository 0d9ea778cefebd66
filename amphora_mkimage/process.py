"""Run host commands: logged, bounded in time, never through a shell."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
#: The locale in which every tool is run: parsers of its output see no translations.
C_LOCALE = {"LC_ALL": "C.UTF-8", "LANGUAGE": "C.UTF-8"}


class UnwantedError(MkimageError):
    """Nobody waits for what a command was to give; no user sees this one."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the environment for a child: the caller's, with sbin in PATH, the C locale, and ``extra`` on top."""
    env = {**os.environ, **C_LOCALE}
    # Debian leaves sbin out of an ordinary user's PATH; mke2fs, sfdisk and mkfs.vfat live there.
    path = env.get("PATH", "/usr/bin:/bin").split(":")
    env["PATH"] = ":".join(path + [d for d in ("/usr/local/sbin", "/usr/sbin", "/sbin") if d not in path])
    env.update(extra or {})
    return env


def run(
    argv: Sequence[str],
    console: Console,
    *,
    what: str,
    remedy: str = "",
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    deadline: float | None = None,
    on_line: Callable[[str], None] | None = None,
    pass_fds: Sequence[int] = (),
    until: int | None = None,
    dies_with_us: bool = False,
) -> str:
    """Run a command to its end and return what it printed (standard output and error together).

    :param what: what failed, for the error ("cannot format the root filesystem")
    :param remedy: what to do about it
    :param env: the whole environment of the child (default: :func:`environment`)
    :param stdin: bytes for its standard input (else it reads nothing)
    :param deadline: seconds after which it is killed
    :param on_line: called with each line as it arrives, for progress
    :param until: descriptor; the command is killed as soon as something can be read there
    :param dies_with_us: for what may take long outside of a namespace: nobody else would end it after SIGKILL
    :raises UnwantedError: that came to pass
    :raises HostError: the program is not there
    :raises MkimageError: it failed, or did not end in time
    """
    console.command(argv)
    us = os.getpid()
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() if env is None else env,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=(lambda: die_with(us)) if dies_with_us else None,  # noqa: PLW1509 (no threads outside)
        )
    except FileNotFoundError as error:
        raise HostError(f"{what}: {argv[0]} is not installed", "run `amphora-mkimage check`") from error
    assert child.stdout is not None
    with child.stdout:
        try:
            lines = _collect(child, console, stdin, deadline, on_line, until)
        except BaseException:
            kill_group(child)
            raise
    if lines is None:
        kill_group(child)
        raise MkimageError(f"{what}: {argv[0]} did not end within {deadline:.0f} s", remedy, tail=tuple(console.tail))
    if child.wait() != 0:
        raise MkimageError(f"{what}: {_ending(argv[0], child.returncode)}", remedy, tail=lines[-20:])
    return "\n".join(lines)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (for ``preexec_fn``).

    The signal comes when the *thread* that started it ends (PR_SET_PDEATHSIG(2const)), so that has to be the main one.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the call


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL a child that was started in a session of its own, and all that it started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ending(program: str, returncode: int) -> str:
    if returncode < 0:
        return f"{program} was killed by {signal.Signals(-returncode).name}"
    return f"{program} exited with status {returncode}"


def _feed(child: subprocess.Popen[bytes], stdin: bytes | None) -> None:
    if stdin is None or child.stdin is None:
        return
    # What we feed (passwords, small configuration) is far below a pipe's capacity, so this cannot block.
    # A program that ends without reading it has its say by its exit status.
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(stdin)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _collect(
    child: subprocess.Popen[bytes],
    console: Console,
    stdin: bytes | None,
    deadline: float | None,
    on_line: Callable[[str], None] | None,
    until: int | None,
) -> list[str] | None:
    """Feed and drain the child; its lines, or None when the deadline passed."""
    assert child.stdout is not None
    _feed(child, stdin)
    end = None if deadline is None else time.monotonic() + deadline
    lines: list[str] = []
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if until is not None:
            selector.register(until, selectors.EVENT_READ)
        while True:
            timeout = None if end is None else end - time.monotonic()
            if timeout is not None and timeout <= 0:
                return None
            ready = selector.select(timeout)
            if not ready:
                continue
            if any(key.fd == until for key, _ in ready):
                raise UnwantedError(f"{child.args!r} is not needed any more")
            chunk = os.read(child.stdout.fileno(), 65536)
            *complete, pending = (pending + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if not chunk and pending:
                complete, pending = [pending], b""
            for raw in complete:
                line = raw.decode(errors="replace")
                lines.append(line)
                console.output(line)
                if on_line is not None:
                    on_line(line)
            if not chunk:
                return lines
