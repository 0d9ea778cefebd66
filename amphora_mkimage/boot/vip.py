"""The network of the virtual IP address, and the port on it that is plugged into the running amphora.

Octavia attaches that port only when it knows the load balancer, so the image's kernel must take a network card while it
runs. Nothing but the forwards below leads out of the network: one from this host to the VIP, one from the guest to the
member, which is a program that qemu starts for each connection.
"""

from __future__ import annotations

import secrets
import shlex
import sys
from dataclasses import dataclass, field

from amphora_mkimage.boot.config_drive import FILES
from amphora_mkimage.boot.qmp import Monitor

#: What OpenStack's overlay networks usually leave of 1500.
MTU = 1450
#: The bus that a machine without hot-plug on its main bus needs; see hardware.py.
ROOT_PORT = "vip-port"


@dataclass(frozen=True)
class Network:
    """A network of qemu's, with a port in the amphora.

    :param name: qemu's name of it
    :param vip: the virtual address
    :param vrrp_ip: the amphora's own address
    :param mac: of the port
    :param members: address and TCP port of the members
    :param forwards: protocol ("tcp", "udp") and port of the virtual address that are to be reached from this host
    :param token: what members answer
    """

    name: str = "vip"
    subnet: str = "10.99.0.0/24"
    gateway: str = "10.99.0.2"
    vip: str = "10.99.0.50"
    vrrp_ip: str = "10.99.0.40"
    mac: str = "52:54:00:12:34:57"
    members: tuple[tuple[str, int], ...] = (("10.99.0.10", 80),)
    forwards: tuple[tuple[str, int], ...] = (("tcp", 80),)
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def backend(self) -> dict[str, object]:
        """Describe it for qemu's monitor (netdev_add)."""
        member = shlex.join([sys.executable, "-I", str(FILES / "member.py"), self.token])
        return {
            "type": "user",
            "id": self.name,
            "ipv6": False,
            "restrict": True,
            "net": self.subnet,
            "host": self.gateway,
            "hostfwd": [{"str": f"{protocol}:127.0.0.1:0-{self.vip}:{port}"} for protocol, port in self.forwards],
            "guestfwd": [{"str": f"tcp:{address}:{port}-cmd:{member}"} for address, port in self.members],
        }

    def plug(self, monitor: Monitor, bus: str) -> None:
        """Plug the port into the running machine.

        :param bus: of the machine; "" is its main one
        :raises MkimageError: qemu refused
        """
        monitor.execute("netdev_add", **self.backend())
        # No option ROM: the network is never booted from, and the machine runs already.
        device = {"driver": "virtio-net-pci", "netdev": self.name, "mac": self.mac, "romfile": ""}
        monitor.execute("device_add", **device, **({"bus": bus} if bus else {}))

    def net_info(self) -> dict[str, object]:
        """Describe the port to the agent as the controller does (drivers/haproxy/rest_api_driver.py)."""
        return {
            "subnet_cidr": self.subnet,
            "gateway": self.gateway,
            "mac_address": self.mac,
            "vrrp_ip": self.vrrp_ip,
            "mtu": MTU,
            "host_routes": [],
            "additional_vips": [],
        }
