"""verify on the programs that cloud-init's renderers call: each renderer, complete and with one thing missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_spoils import Spoil, both, distribution, nothing, remove, replace, wanted_by, without_program, write
from verify_tree import ENI, amphora, check_tar

from amphora_mkimage.verify.result import Result

PASS, INFO, WARN, FAIL = Result.PASS, Result.INFO, Result.WARN, Result.FAIL
TOOLS, MTU = "configuration.network-tools", "configuration.mtu"

NETWORKD = "/usr/lib/systemd/systemd-networkd"
WITHOUT_IFUPDOWN = without_program("ifup")
NETPLAN = both(WITHOUT_IFUPDOWN, distribution("ubuntu"), write("/usr/sbin/netplan", "", 0o755))
NMCLI = both(
    WITHOUT_IFUPDOWN,
    distribution("fedora"),
    write("/usr/bin/nmcli", "", 0o755),
    write("/usr/lib/systemd/system/NetworkManager.service"),
    write(wanted_by("NetworkManager.service")),
)
PLUGIN = "/usr/lib64/NetworkManager/1.52.0/libnm-settings-plugin-ifcfg-rh.so"
IFCFG = both(WITHOUT_IFUPDOWN, distribution("rocky"), write(PLUGIN))
IPROUTE = replace(ENI, "post-up route add", "post-up ip")
RENDERERS = "system_info:\n  network:\n    renderers: "


def order(names: str) -> Spoil:
    return write("/etc/cloud/cloud.cfg.d/97-renderer.cfg", f"{RENDERERS}{names}\n")


@pytest.mark.parametrize(
    ("identifier", "result", "words", "spoil"),
    [
        # ifupdown
        (TOOLS, PASS, "eni", nothing),
        (TOOLS, FAIL, "no default route", without_program("route")),
        (TOOLS, PASS, "eni", both(without_program("route"), IPROUTE)),
        (TOOLS, FAIL, "no DHCP client", without_program("dhclient")),
        (TOOLS, PASS, "eni", both(without_program("dhclient"), write("/usr/sbin/dhcpcd", "", 0o755))),
        (TOOLS, INFO, "eni.py was not found", remove(ENI)),
        (MTU, PASS, "", nothing),
        (MTU, WARN, "static IPv4 only", remove("/etc/network/if-pre-up.d")),
        (MTU, WARN, "static IPv4 only", write("/etc/network/if-pre-up.d/mtu", "#!/bin/sh\nip $IF_MTU\n", 0o644)),
        # ifupdown wins beside netplan, unless cloud.cfg says otherwise
        (TOOLS, PASS, "eni", write("/usr/sbin/netplan", "", 0o755)),
        (TOOLS, FAIL, "for netplan", both(write("/usr/sbin/netplan", "", 0o755), order("[netplan, eni]"))),
        (TOOLS, FAIL, "for netplan", both(write("/usr/sbin/netplan", "", 0o755), order("\n      - netplan\n"))),
        (TOOLS, PASS, "eni", both(write("/usr/sbin/netplan", "", 0o755), order("['eni', 'netplan']"))),
        # netplan
        (TOOLS, FAIL, "no systemd-networkd", NETPLAN),
        (TOOLS, PASS, "netplan", both(NETPLAN, write(NETWORKD, "", 0o755))),
        (TOOLS, PASS, "netplan", both(NETPLAN, write("/usr/sbin/NetworkManager", "", 0o755))),
        (MTU, PASS, "", both(NETPLAN, remove("/etc/network/if-pre-up.d"))),
        # NetworkManager, by its own files or by ifcfg's
        (TOOLS, FAIL, "no NetworkManager", NMCLI),
        (TOOLS, PASS, "network-manager", both(NMCLI, write("/usr/sbin/NetworkManager", "", 0o755))),
        (TOOLS, FAIL, "for sysconfig", IFCFG),
        (TOOLS, PASS, "sysconfig", both(IFCFG, write("/usr/sbin/NetworkManager", "", 0o755))),
        # nothing but what systemd brings
        (TOOLS, FAIL, "for networkd", WITHOUT_IFUPDOWN),
        (TOOLS, FAIL, "finds none", both(WITHOUT_IFUPDOWN, order("[eni, netplan]"))),
    ],
)  # fmt: skip
def test_network(identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")[identifier]
    assert outcome.result is result, outcome.findings
    assert any(words in finding.detail for finding in outcome.findings) or not words
