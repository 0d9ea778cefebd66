"""Be a guest behind the router of ``boot``, without a virtual machine: a network namespace with a card of its own.

A program, because an ordinary user runs it too. Arguments: kind of the network, and "route" or "no-route" for whether a
guest with static addresses sets its default routes. Prints what was seen from the controller, and what DHCP offered.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from amphora_mkimage.boot import router
from amphora_mkimage.boot.heartbeat import PORT, Received
from amphora_mkimage.boot.management import MAC, NETWORKS, Kind, Management, Mode
from amphora_mkimage.guest import id_maps, userns

#: How long something may take to arrive, and how long it is waited for what must not arrive.
PATIENCE, SHORT = 20.0, 1.0
HTTP = 80
OCTETS = bytes.fromhex(MAC.replace(":", ""))


def pump(source: int, sink: int) -> None:
    while frame := os.read(source, 65536):
        os.write(sink, frame)


def ip(*words: object) -> str:
    return subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=True).stdout


def wait_for(words: tuple[object, ...], text: str) -> str:
    end = time.monotonic() + PATIENCE
    while text not in (found := ip(*words)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def dhcp() -> tuple[str, dict[int, str]]:
    """Ask for an address (RFC 2131); the address and the options that were offered, the MTU among them if it was."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.settimeout(PATIENCE)
        client.bind(("0.0.0.0", 68))
        request = struct.pack("!BBBBIHH16s16s192xI", 1, 1, 6, 0, 7, 0, 0x8000, b"", OCTETS, 0x63825363)
        # Discover; asked for: mask, router, name servers, MTU.
        client.sendto(request + bytes([53, 1, 1, 55, 4, 1, 3, 6, 26, 255]), ("255.255.255.255", 67))
        offer = client.recv(4096)
    found, at = {}, 240
    while offer[at] != 255:
        found[offer[at]] = offer[at + 2 : at + 2 + offer[at + 1]].hex()
        at += 2 + offer[at + 1]
    return socket.inet_ntoa(offer[16:20]), found


def dhcpv6() -> str:
    """Solicit an address (RFC 8415); the one that was advertised."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.bind(("::", 546, 0, socket.if_nametoindex("eth0")))
        identity = struct.pack("!HHHH", 1, 10, 3, 1) + OCTETS
        association = struct.pack("!HHIII", 3, 12, 1, 0, 0)
        solicit = bytes([1, 0, 0, 7]) + identity + association
        client.sendto(solicit, ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
        advertised = client.recv(4096)
    at = advertised.index(struct.pack("!HH", 5, 24)) + 4  # an address within the association
    return socket.inet_ntop(socket.AF_INET6, advertised[at : at + 16])


def configure(network: Management, *, route: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for subnet in network.subnets:
        version, address = subnet.version, subnet.address
        if subnet.mode is Mode.STATIC:
            ip("address", "add", address, "dev", "eth0", *(["nodad"] if version == 6 else []))
            if route:
                ip(f"-{version}", "route", "add", "default", "via", subnet.gateway)
        elif subnet.mode is Mode.DHCP:
            offered, options = dhcp()
            found["dhcp"] = {"address": offered, "options": options}
            ip("address", "add", f"{offered}/24", "dev", "eth0")
            ip("route", "add", "default", "via", socket.inet_ntoa(bytes.fromhex(options[3])))
        elif subnet.mode is Mode.STATEFUL:
            wait_for(("-6", "route"), "default")
            found["autoconfigured"] = ip("-6", "address", "show", "dev", "eth0", "scope", "global")
            found["dhcpv6"] = dhcpv6()
            ip("address", "add", f"{found['dhcpv6']}/128", "dev", "eth0", "nodad")
        if version == 6:
            wait_for(("-6", "address", "show", "dev", "eth0", "-tentative"), str(address.ip))
            found["routes6"] = wait_for(("-6", "route"), "default") if route else ip("-6", "route")
            found["mtu6"] = int(Path("/proc/sys/net/ipv6/conf/eth0/mtu").read_text())
    return found


def be_guest(network: Management, tap: int, talk: socket.socket, *, route: bool) -> None:
    """Answer TCP connections and send heartbeats, until the other side has seen enough."""
    userns.without_network()
    own = router.open_tap("eth0")
    ip("link", "set", "eth0", "address", MAC, "up")
    for pair in ((own, tap), (tap, own)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
    # Until duplicate address detection is done, nothing is sent from there.
    wait_for(("-6", "address", "show", "dev", "eth0", "-tentative"), "fe80")
    found = configure(network, route=route)
    talk.sendall(json.dumps(found).encode() + b"\n")
    server = socket.create_server(("::", HTTP), family=socket.AF_INET6, dualstack_ipv6=True)
    while talk not in (ready := select.select([server, talk], [], [], 0.2)[0]):
        if server in ready:
            with server.accept()[0] as connection:
                connection.sendall(b"the guest")
        for version, address in network.controllers.items():
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as heartbeat:
                heartbeat.sendto(b"beat", (address, PORT))


def ask(port: int, patience: float) -> str:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), patience) as connection:
        return connection.recv(100).decode()
    return ""


def look(network: Management, link: router.Link, talk: socket.socket, patience: float) -> dict[str, Any]:
    """Be the controller."""
    talk.settimeout(4 * PATIENCE)
    with talk.makefile("rb") as stream:
        found: dict[str, Any] = json.loads(stream.readline())
    found["answers"] = {str(version): ask(link.ports[version, HTTP], patience) for version in network.addresses}
    received = Received(link.heartbeats)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        received.datagrams()
        if not received.silent():
            break
        time.sleep(0.05)
    found["silent"] = received.silent()
    talk.sendall(b".")
    return found


def main() -> None:
    network, route = NETWORKS[Kind(sys.argv[1])], sys.argv[2] == "route"

    def work(link: router.Link) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        found: list[dict[str, Any]] = []
        userns.run(
            lambda: be_guest(network, link.tap, theirs, route=route),
            id_map=id_maps.own(),
            meanwhile=lambda _: found.append(look(network, link, ours, PATIENCE if route else SHORT)),
        )
        return found[0]

    sys.stdout.write(json.dumps(router.behind(network, [HTTP], work)) + "\n")


if __name__ == "__main__":
    main()
