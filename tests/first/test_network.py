"""The management network of that image, as config drives of every kind describe it, without a boot (tests/network)."""

from __future__ import annotations

from collections.abc import Iterator

import cases
import pytest


@pytest.fixture(scope="module")
def reports(built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cases.Reports]:
    with cases.started(built.tar, tmp_path_factory.mktemp("network")) as started:
        yield started


@pytest.mark.parametrize("name", cases.NAMES)
def test_network(reports: cases.Reports, name: str) -> None:
    cases.check(reports, name)
