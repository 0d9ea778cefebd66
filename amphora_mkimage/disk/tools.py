"""Host tools on plain files: no loop device, no mount, no privilege."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.console import Console

_FULL = "free some space: the build needs it in memory, or with -f in the working directory (-w), and beside the output"


def tool(argv: Sequence[str | Path], console: Console, what: str, *, stdin: str | None = None) -> str:
    """Run a disk tool.

    :param what: what failed, for the error
    :param stdin: text for its standard input
    """
    text = [os.fspath(word) for word in argv]
    return process.run(text, console, what=what, remedy=_FULL, stdin=None if stdin is None else stdin.encode())


def splice(source: Path, target: Path, offset: int) -> None:
    """Copy a file into another at an offset in bytes, leaving holes where it has blocks of zeros."""
    block = 1 << 16
    with source.open("rb") as reader, target.open("r+b") as writer:
        while chunk := reader.read(block):
            if chunk.count(0) != len(chunk):
                writer.seek(offset)
                writer.write(chunk)
            offset += len(chunk)
