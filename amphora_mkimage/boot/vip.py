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

SUBNET, GATEWAY = "10.99.0.0/24", "10.99.0.2"
#: The virtual address, the amphora's own on that network, and the member's.
VIP, VRRP_IP, MEMBER = "10.99.0.50", "10.99.0.40", "10.99.0.10"
#: What OpenStack's overlay networks usually leave of 1500.
MTU = 1450
MAC = "52:54:00:12:34:57"
#: The bus that a machine without hot-plug on its main bus needs; see hardware.py.
ROOT_PORT = "vip-port"

_NETDEV = "vip"


@dataclass(frozen=True)
class Network:
    """The network.

    :param ports: the VIP's TCP ports that are to be reached from this host
    :param token: what the member answers
    """

    ports: tuple[int, ...] = (80,)
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def backend(self) -> dict[str, object]:
        """Describe it for qemu's monitor (netdev_add)."""
        member = shlex.join([sys.executable, "-I", str(FILES / "member.py"), self.token])
        return {
            "type": "user",
            "id": _NETDEV,
            "ipv6": False,
            "restrict": True,
            "net": SUBNET,
            "host": GATEWAY,
            "hostfwd": [{"str": f"tcp:127.0.0.1:0-{VIP}:{port}"} for port in self.ports],
            "guestfwd": [{"str": f"tcp:{MEMBER}:80-cmd:{member}"}],
        }

    def plug(self, monitor: Monitor, bus: str) -> None:
        """Plug the port into the running machine.

        :param bus: of the machine; "" is its main one
        :raises MkimageError: qemu refused
        """
        monitor.execute("netdev_add", **self.backend())
        device: dict[str, object] = {"driver": "virtio-net-pci", "netdev": _NETDEV, "mac": MAC, "id": "vip-card"}
        if bus:
            device["bus"] = bus
        # No option ROM: the network is never booted from, and the machine runs already.
        monitor.execute("device_add", **device, romfile="")


def net_info() -> dict[str, object]:
    """Describe the port to the agent as the controller does (octavia/amphorae/drivers/haproxy/rest_api_driver.py)."""
    return {
        "subnet_cidr": SUBNET,
        "gateway": GATEWAY,
        "mac_address": MAC,
        "vrrp_ip": VRRP_IP,
        "mtu": MTU,
        "host_routes": [],
        "additional_vips": [],
    }
