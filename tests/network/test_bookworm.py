"""The management network of bookworm; that of trixie is in tests/first, where its image is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cases
import pytest


@pytest.fixture(scope="module")
def reports(run_cli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[cases.Reports]:
    """Without the agent, which has no part in this."""
    place = tmp_path_factory.mktemp("bookworm")
    done = run_cli(
        "-i", "debian-minimal", "-d", "bookworm", "--no-agent", "-t", "tar", "-o", place / "amphora", "-w", place,
        "-c", cache_dir,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with cases.started(place / "amphora.tar", place) as started:
        yield started


@pytest.mark.parametrize("name", cases.NAMES)
def test_network(reports: cases.Reports, name: str) -> None:
    cases.check(reports, name)


def test_the_cases_are_of_every_kind() -> None:
    """A case that went would be missed."""
    kinds = {network["type"] for name in cases.NAMES for network in cases.network_data(name)["networks"]}
    assert kinds >= {"ipv4", "ipv6", "ipv4_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateful", "ipv6_dhcpv6-stateless"}
    mtus = {link["mtu"] for name in cases.NAMES for link in cases.network_data(name)["links"]}
    assert mtus >= {1450, 9000, None}
    assert any(cases.expected(name).get("absent") for name in cases.NAMES)
    assert any(cases.expected(name).get("names") for name in cases.NAMES)
