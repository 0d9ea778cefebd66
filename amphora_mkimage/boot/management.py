"""The management network of the guest: what the config drive says of it, and where the controller stands.

Each kind is a subnet as Neutron and Nova make it (nova/virt/netutils.py, get_network_metadata). The addresses are those
that are set apart for documentation (RFC 5737, RFC 3849), which nothing inside the guest uses.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: The MAC address of the management card; network_data refers to it.
MAC = "52:54:00:12:34:56"
#: What an overlay network leaves of 1500, and what Nova then writes.
_OVERLAY_MTU = 1450
_LINK = "tap0a1b2c3d-4e"


class Kind(StrEnum):
    """Kinds of management networks."""

    USER = "user"
    STATIC = "static"
    DHCP = "dhcp"
    SLAAC = "slaac"
    STATEFUL = "stateful"
    DUAL = "dual"


class Mode(StrEnum):
    """How the guest gets an address of one family; the values are how Nova writes the type."""

    STATIC = ""
    DHCP = "_dhcp"
    SLAAC = "_slaac"
    STATEFUL = "_dhcpv6-stateful"


@dataclass(frozen=True)
class Subnet:
    """A subnet of the management network.

    :param mode: how the guest gets its address
    :param address: the guest's, with the length of the prefix
    :param gateway: the router's address there; "" when there is no router
    :param controller: the controller's address, where heartbeats go to
    """

    mode: Mode
    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    gateway: str
    controller: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.address.version

    def network_data(self, number: int) -> dict[str, object]:
        """Describe it as Nova does; of IPv4 with DHCP it tells nothing more than that."""
        any_ = "0.0.0.0" if self.version == 4 else "::"  # noqa: S104 (a route, not bound to)
        found: dict[str, object] = {
            "id": f"network{number}",
            "type": f"ipv{self.version}{self.mode}",
            "link": _LINK,
            "network_id": str(uuid.UUID(int=number)),
        }
        if self.mode is not Mode.DHCP:
            found["ip_address"] = str(self.address.ip)
            found["netmask"] = str(self.address.netmask)
            found["routes"] = [{"network": any_, "netmask": any_, "gateway": self.gateway}]
            found["services"] = []
        return found


@dataclass(frozen=True)
class Management:
    """A management network.

    :param subnets: at least one; through the first the agent is driven
    :param mtu: what network_data.json says
    """

    kind: Kind
    subnets: tuple[Subnet, ...]
    mtu: int = _OVERLAY_MTU

    @property
    def routed(self) -> bool:
        """Whether a router stands between the guest and the controller."""
        return all(subnet.gateway for subnet in self.subnets)

    @property
    def addresses(self) -> Mapping[int, str]:
        """The guest's addresses by IP version."""
        return {subnet.version: str(subnet.address.ip) for subnet in self.subnets}

    @property
    def controllers(self) -> Mapping[int, str]:
        """The controller's addresses by IP version."""
        return {subnet.version: subnet.controller for subnet in self.subnets}

    def network_data(self) -> dict[str, object]:
        """Return network_data.json of the config drive.

        It must not be left out: without it cloud-init falls back on DHCP for IPv4 *and* IPv6, and ifupdown then waits
        for ``dhclient -6``, which without ``-1`` goes on for ever on a network without DHCPv6.
        """
        link = {"id": _LINK, "vif_id": str(uuid.UUID(int=0)), "type": "ovs", "mtu": self.mtu}
        return {
            "links": [{**link, "ethernet_mac_address": MAC}],
            "networks": [subnet.network_data(number) for number, subnet in enumerate(self.subnets)],
            "services": [],
        }


def _ipv4(mode: Mode) -> Subnet:
    return Subnet(mode, ipaddress.ip_interface("192.0.2.50/24"), "192.0.2.1", "198.51.100.10")


def _ipv6(mode: Mode, host: str = "50") -> Subnet:
    return Subnet(mode, ipaddress.ip_interface(f"2001:db8:a::{host}/64"), "2001:db8:a::1", "2001:db8:b::10")


#: What stateless address configuration makes of :data:`MAC` (RFC 4291, appendix A), and Neutron expects.
_EUI_64 = "5054:ff:fe12:3456"
_SLAAC = _ipv6(Mode.SLAAC, _EUI_64)
#: The network of each kind; that of qemu's user network has the addresses that qemu hands out.
NETWORKS = {
    network.kind: network
    for network in (
        Management(Kind.USER, (Subnet(Mode.DHCP, ipaddress.ip_interface("10.0.2.15/24"), "", "10.0.2.2"),), 1500),
        Management(Kind.STATIC, (_ipv4(Mode.STATIC), _ipv6(Mode.STATIC))),
        Management(Kind.DHCP, (_ipv4(Mode.DHCP),)),
        Management(Kind.SLAAC, (_SLAAC,)),
        Management(Kind.STATEFUL, (_ipv6(Mode.STATEFUL),)),
        Management(Kind.DUAL, (_ipv4(Mode.DHCP), _SLAAC)),
    )
}
