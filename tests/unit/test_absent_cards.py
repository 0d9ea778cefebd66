"""What is left of a network when some of its cards are not there; tests/network runs the whole program."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amphora_mkimage.stages.install import FILES


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing of it belongs beside the image's files
    loader = SourceFileLoader("absent_cards", str(FILES / "usr/local/sbin/amphora-absent-cards"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    yield module
    sys.dont_write_bytecode = before


def card(name: str, mac: str) -> dict[str, Any]:
    return {"id": name, "type": "phy", "ethernet_mac_address": mac}


def bond(name: str, *links: str) -> dict[str, Any]:
    return {"id": name, "type": "bond", "bond_links": list(links), "ethernet_mac_address": "0a:00:00:00:00:01"}


def vlan(name: str, below: str) -> dict[str, Any]:
    return {"id": name, "type": "vlan", "vlan_link": below, "vlan_id": 7, "vlan_mac_address": "0a:00:00:00:00:02"}


A, B = card("a", "FA:16:3E:00:00:0A"), card("b", "fa:16:3e:00:00:0b")
MAC_A, MAC_B = "fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b"


@pytest.mark.parametrize(
    ("links", "macs", "left"),
    [
        ([A, B], {MAC_A, MAC_B}, ["a", "b"]),
        ([A, B], {MAC_A}, ["a"]),
        ([A, B], set(), []),
        ([vlan("v", "b"), A, B], {MAC_A}, ["a"]),
        ([vlan("v", "o"), bond("o", "a", "b"), A, B], {MAC_A}, ["v", "o", "a"]),
        ([vlan("v", "o"), bond("o", "a", "b"), A, B], set(), []),
        ([{"id": "n", "type": "phy"}], {MAC_A}, []),
    ],
)
def test_what_is_left(program: ModuleType, links: list[dict[str, Any]], macs: set[str], left: list[str]) -> None:
    data = {"links": links, "networks": [{"id": f"on-{link['id']}", "link": link["id"]} for link in links]}
    rest = program.without(data, program.absent_links(data, macs))
    assert [link["id"] for link in rest["links"]] == left
    assert [network["link"] for network in rest["networks"]] == left
    for link in rest["links"]:
        assert set(link.get("bond_links", [])) <= set(left)


def test_addresses_of_infiniband(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neutron knows a port by six octets: the first three and the last three of the card's GUID, its last eight."""
    addresses = {"eth0": "FA:16:3E:00:00:0A", "ib0": "80:00:00:28:fe:80:00:00:00:00:00:00:fa:16:3e:03:00:00:00:0c"}
    for name, address in addresses.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text(f"{address}\n")
    (tmp_path / "bonding_masters").touch()
    monkeypatch.setattr(program, "CARDS", tmp_path)
    assert program.known_macs() == {MAC_A, addresses["ib0"], "fa:16:3e:00:00:0c"}
