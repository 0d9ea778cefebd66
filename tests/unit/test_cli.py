"""What the command line does around its commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("check",)])
def test_a_reader_that_has_seen_enough(arguments: tuple[str, ...], start_cli: Callable[..., subprocess.Popen[bytes]]):
    """``amphora-mkimage --help | head -1``."""
    read, write = os.pipe()
    os.close(read)
    child = start_cli(*arguments, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0
    assert b"Error" not in errors
