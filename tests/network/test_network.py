"""The management network as a config drive describes it, for each kind that OpenStack gives, without a boot.

A case is a directory under ``cases/``: ``network_data.json`` as Nova writes it, and ``expected.toml`` with what is on
the other side of each card ([router.ethN]: addresses, lines for dnsmasq) and what has to come out ([card.ethN]);
``rendered.toml`` has what cloud-init writes for netplan and NetworkManager, which the builds of Ubuntu and Red Hat's
family are compared with (tests/build, tests/lab). A new case is a new directory.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from namespaces import CASES, TOGETHER, cases, run_case

NAMES = [case.name for case in cases()]

Reports = Mapping[str, Future[dict[str, Any]]]


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> Reports:
    """Start every case in one release's tree; each test waits for its own."""
    tree: Path = request.getfixturevalue(request.param)
    pool = ThreadPoolExecutor(TOGETHER)
    request.addfinalizer(lambda: pool.shutdown(cancel_futures=True))
    return {case.name: pool.submit(run_case, tree, case) for case in cases()}


def expected(name: str) -> dict[str, Any]:
    return tomllib.loads((CASES / name / "expected.toml").read_text())


@pytest.mark.parametrize("reports", ["trixie", "bookworm"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_network(reports: Reports, name: str) -> None:
    report, case = reports[name].result(), expected(name)
    assert report["cloud-init"] == 0, report["log"]
    assert report["right"], f"{case['reason']}\nexpected {case['card']}\ngot {report['cards']}\n{report['log']}"
    # sshd is on these addresses, of whatever family and origin, and on no others.
    assert report["ssh"] == report["addresses"], report["log"]


@pytest.mark.parametrize("reports", ["trixie", "bookworm"], indirect=True)
def test_what_is_missing_is_named(reports: Reports) -> None:
    for name in NAMES:
        said = [line for line in reports[name].result()["log"].splitlines() if line.startswith("amphora: ")]
        absent = expected(name).get("absent", [])
        assert len(said) == len(absent), said
        assert all(f" {mac} " in line for mac, line in zip(absent, said, strict=True))


@pytest.mark.parametrize("reports", ["trixie", "bookworm"], indirect=True)
def test_the_host_name_resolves(reports: Reports) -> None:
    """Nova appends its dhcp_domain, ".novalocal"; nothing asks DNS."""
    assert reports["static4"].result()["names"] == {"-s": "amphora-1", "-f": "amphora-1.novalocal"}


def test_the_cases_are_of_every_kind() -> None:
    """A case that went would be missed."""
    kinds = {network["type"] for name in NAMES for network in _data(name)["networks"]}
    assert kinds >= {"ipv4", "ipv6", "ipv4_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateful", "ipv6_dhcpv6-stateless"}
    for mtu in (1450, 9000, None):
        assert any(link["mtu"] == mtu for name in NAMES for link in _data(name)["links"]), mtu


def _data(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((CASES / name / "network_data.json").read_text())
    return data
