"""Package lists of Red Hat's family: one for all, and what a distribution changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from make_request import make

import amphora_mkimage.package_lists
from amphora_mkimage import packages

LISTS = Path(next(iter(amphora_mkimage.package_lists.__path__)))


def groups(distribution: str, *argv: str) -> dict[str, list[str]]:
    return packages.groups(make("-i", distribution, *argv))


@pytest.mark.parametrize("distribution", ["fedora", "centos", "rocky", "rhel"])
def test_every_distribution_has_what_the_agent_calls(distribution: str) -> None:
    found = {name for group in groups(distribution).values() for name in group}
    assert {"haproxy", "keepalived", "ipvsadm", "nftables", "cryptsetup", "rsyslog", "NetworkManager"} <= found
    assert "openssh-server" not in {name for group in groups(distribution, "-n").values() for name in group}
    assert "unwanted" not in groups(distribution)


def test_a_distribution_adds_to_the_list_that_it_extends() -> None:
    assert groups("fedora")["dhcp"] == ["dhcp-client"]
    # RHEL 10 and its kin have no dhclient any more.
    assert "dhcp" not in groups("centos")


def test_every_group_has_a_reason() -> None:
    for file in LISTS.glob("*.toml"):
        for role, group in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if role != "extends":
                assert group["reason"], f"{file.name}: {role}"
                assert group.get("packages") or group.get("remove"), f"{file.name}: {role}"
