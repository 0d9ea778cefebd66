"""A built image whose controller stands behind a router, as Octavia's do; tests/network has every other network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amphora_mkimage.boot.management import NETWORKS, Kind


@pytest.mark.parametrize("kind", [Kind.STATIC, Kind.DUAL])
def test_it_reaches_a_controller_in_another_network(kind: Kind, built_image: Path, run_cli) -> None:
    done = run_cli("boot", "--json", "--network", kind, "--timeout", "1800", built_image, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"], result["problems"]) == ("running", [], [])
    assert result["network"]["kind"] == kind
    assert result["network"]["mtu"] == 1450
    for subnet in NETWORKS[kind].subnets:
        routes = result["network"]["routes"][f"ipv{subnet.version}"]
        # The router is named by its link-local address where it advertises itself (RFC 4861, 4.2).
        gateway = "fe80::" if subnet.version == 6 and kind is Kind.DUAL else subnet.gateway
        assert any(route.startswith(f"default via {gateway}") for route in routes), routes
    # A heartbeat came to each of the controller's addresses.
    assert [step["name"] for step in result["agent"]["steps"] if step["ok"]][-2:] == ["heartbeat", "delete"]


@pytest.mark.slow
def test_its_load_balancer_is_there_again_after_the_power_button_and_after_a_reset(built_image: Path, run_cli) -> None:
    arguments = ("--json", "--reboot", "--network", Kind.DUAL, "--timeout", "3000", built_image)
    done = run_cli("boot", *arguments, timeout=4000)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"], result["problems"]) == ("running", [], [])
    steps = [step["name"] for step in result["agent"]["steps"] if step["ok"]]
    assert steps[-3:] == ["power button", "reset", "delete"]
