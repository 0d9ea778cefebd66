"""Standard streams whose other end may be gone, or was never there."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

from amphora_mkimage.errors import MkimageError


def open_missing() -> None:
    """Give every standard stream that was closed (``2>&-``) a place to go.

    Otherwise the next file that is opened gets its number, and what is printed lands in that file.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest number that is free, which is this one; programs that are started have it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Whoever puts another stream in their place must not close the descriptor with them.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (a descriptor)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def write(stream: TextIO, text: str) -> None:
    """Write to whoever watches; it is not a failure when nobody does any more (``| head``, a closed terminal)."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        forget(stream)


def result(text: str) -> None:
    """Print a result on standard output; a reader that has seen enough changes nothing about it.

    :raises MkimageError: it cannot be written, and somebody wants it
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        forget(sys.stdout)
    except OSError as error:
        forget(sys.stdout)
        remedy = "free some space where standard output goes" if error.errno == errno.ENOSPC else ""
        raise MkimageError(f"cannot write the result to standard output: {error.strerror}", remedy) from error


def forget(stream: TextIO) -> None:
    """Send what is left of a stream, and what is written to it from now on, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
