"""Host commands that are run leave nothing open behind them."""

from __future__ import annotations

import gc
import io
import os
import warnings
from collections.abc import Callable

import pytest

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError


def run(script: str, **options: object) -> None:
    process.run(["sh", "-c", script], Console(io.StringIO()), what="x", **options)


def ends_well() -> None:
    run("cat", stdin=b"text")


def fails() -> None:
    with pytest.raises(MkimageError):
        run("exit 3")


def is_late() -> None:
    with pytest.raises(MkimageError, match="did not end"):
        run("sleep 60", deadline=0.1)


def is_not_wanted() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    try:
        with pytest.raises(process.UnwantedError):
            run("sleep 60", until=reader)
    finally:
        os.close(reader)


@pytest.mark.parametrize("way", [ends_well, fails, is_late, is_not_wanted])
def test_no_descriptor_stays_open(way: Callable[[], None]) -> None:
    """PYTHONWARNINGS=default, common in CI, would print a line for each."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (what it opens itself is counted both times)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        way()
        gc.collect()
    assert [warning for warning in seen if issubclass(warning.category, ResourceWarning)] == []
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 (as above)
