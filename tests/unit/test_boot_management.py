"""The networks that ``boot`` offers: what Nova would write, and what a guest's report is held against."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from amphora_mkimage.boot.management import MAC, NETWORKS, Kind
from amphora_mkimage.boot.report import GuestReport

ROUTED = [kind for kind in Kind if kind is not Kind.USER]
V4, V6 = "default via 192.0.2.1 dev eth0 onlink", "default via fe80::1 dev eth0 proto ra metric 1024 expires 1795sec"
#: Without a gateway some kernels list the absence of a route.
NONE6 = "unreachable default dev lo metric 4294967295 error -101"


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        (Kind.USER, ["ipv4_dhcp"]),
        (Kind.STATIC, ["ipv4", "ipv6"]),
        (Kind.DHCP, ["ipv4_dhcp"]),
        (Kind.SLAAC, ["ipv6_slaac"]),
        (Kind.STATEFUL, ["ipv6_dhcpv6-stateful"]),
        (Kind.DUAL, ["ipv4_dhcp", "ipv6_slaac"]),
    ],
)
def test_types_are_novas(kind: Kind, types: list[str]) -> None:
    data: dict[str, Any] = json.loads(json.dumps(NETWORKS[kind].network_data()))
    (link,) = data["links"]
    assert (link["ethernet_mac_address"], link["mtu"]) == (MAC, 1500 if kind is Kind.USER else 1450)
    assert [network["type"] for network in data["networks"]] == types
    assert {network["link"] for network in data["networks"]} == {link["id"]}
    for network in data["networks"]:
        told = network["type"] != "ipv4_dhcp"
        assert [key in network for key in ("ip_address", "netmask", "routes")] == [told] * 3


@pytest.mark.parametrize("kind", ROUTED)
def test_the_controller_is_in_another_network(kind: Kind) -> None:
    network = NETWORKS[kind]
    assert network.routed
    for subnet in network.subnets:
        assert ipaddress.ip_address(subnet.gateway) in subnet.address.network
        assert ipaddress.ip_address(subnet.controller) not in subnet.address.network


def test_the_slaac_address_is_made_of_the_mac_address() -> None:
    octets = bytes.fromhex(MAC.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    assert ipaddress.ip_address(NETWORKS[Kind.SLAAC].addresses[6]).packed[8:] == identifier


def problems(kind: Kind, *, mtu: int = 1450, mac: str = MAC, ipv4: object = (V4,), ipv6: object = (V6,)) -> list[str]:
    cards = [{"name": "lo", "mac": "00:00:00:00:00:00", "mtu": 65536}, {"name": "eth0", "mac": mac, "mtu": mtu}]
    report = GuestReport()
    report.take(json.dumps({"event": "network", "cards": cards, "routes": {"ipv4": ipv4, "ipv6": ipv6}}))
    assert report.network is not None
    return report.network.problems(NETWORKS[kind])


@pytest.mark.parametrize("kind", ROUTED)
def test_a_guest_that_reaches_its_controller(kind: Kind) -> None:
    assert problems(kind) == []


def test_qemus_user_network_has_no_router() -> None:
    assert problems(Kind.USER, mtu=1500, ipv4=[], ipv6=[]) == []
    assert problems(Kind.USER, mtu=1450) == ["eth0 has MTU 1450, the config drive says 1500"]


@pytest.mark.parametrize(
    ("kind", "routes", "families"),
    [
        (Kind.STATIC, {"ipv4": ["192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.50"]}, [4]),
        (Kind.STATIC, {"ipv4": [], "ipv6": []}, [4, 6]),
        (Kind.STATIC, {"ipv6": [NONE6]}, [6]),
        (Kind.DHCP, {"ipv4": [], "ipv6": []}, [4]),
        (Kind.SLAAC, {"ipv4": [], "ipv6": []}, [6]),
        (Kind.DUAL, {"ipv6": "default"}, [6]),
        (Kind.DUAL, {"ipv4": ["default via 10.99.0.1 dev eth1"]}, [4]),
        (Kind.DUAL, {"ipv4": ["default via 10.99.0.1 dev"]}, [4]),
    ],
)
def test_a_guest_without_a_default_route(kind: Kind, routes: dict[str, Any], families: list[int]) -> None:
    found = problems(kind, **routes)
    assert [line.partition(" on eth0")[0] for line in found] == [f"no default route for IPv{n}" for n in families]


@pytest.mark.parametrize("mtu", [1500, 0])
def test_a_guest_with_another_mtu(mtu: int) -> None:
    assert problems(Kind.DHCP, mtu=mtu) == [f"eth0 has MTU {mtu}, the config drive says 1450"]


def test_a_guest_without_the_card() -> None:
    (line,) = problems(Kind.DUAL, mac="52:54:00:00:00:00")
    assert MAC in line
