"""A router between the guest and the controller, in namespaces of this program's own.

The guest's card is a tap device in the router's network namespace; the controller's sockets are in another one behind
it. So a guest without a default route is as silent as it is in a cloud. Both are inside a user namespace, in which an
ordinary user may make them (user_namespaces(7)), and a pid namespace, with which everything ends: devices, addresses
and the DHCP server, also after SIGKILL (pid_namespaces(7)). Descriptors of the tap device and of the controller's
sockets come out of there, as a socket belongs for good to the namespace in which it was made.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

from amphora_mkimage import process
from amphora_mkimage.boot import relay
from amphora_mkimage.boot.heartbeat import PORT as HEARTBEAT_PORT
from amphora_mkimage.boot.management import MAC, Management, Mode, Subnet
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import id_maps, userns
from amphora_mkimage.process import UnwantedError

#: Device of the guest's network, and the two ends of the cable to the controller's.
TAP, _NEAR, _FAR = "management", "router", "controller"
_TUN = Path("/dev/net/tun")
#: The router's address in the controller's network, by IP version.
_ROUTER = {4: "198.51.100.1/24", 6: "2001:db8:b::1/64"}
#: Nobody else is there, so an address need not be probed for first.
_NODAD = {4: "", 6: " nodad"}
_FORWARDING = {4: Path("/proc/sys/net/ipv4/ip_forward"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
#: No name service, no files of this host, none of its own.
_SERVER = (
    *("--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv", "--no-ping", "--user=root", "--leasefile-ro"),
    *(f"--interface={TAP}", "--bind-interfaces", "--dhcp-authoritative", "--log-facility=-"),
)
#: linux/if_tun.h
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_START_SECONDS = 30.0
_DONE = "done"

#: Sockets that listen on this host, by IP version and port of the guest.
Listeners = Mapping[tuple[int, int], socket.socket]
T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """What comes out of the namespaces.

    :param tap: descriptor of the guest's end of its network
    :param ports: ports on 127.0.0.1 by IP version and port of the guest; connections come from the controller's address
    :param heartbeats: sockets of the controller by their address
    """

    tap: int
    ports: Mapping[tuple[int, int], int]
    heartbeats: Mapping[str, socket.socket] = field(repr=False)


def require(network: Management) -> None:
    """Look for what it takes.

    :raises HostError: this host lacks something
    """
    for program, package in (("ip", "iproute2"), *((("dnsmasq", "dnsmasq-base"),) if server_options(network) else ())):
        if shutil.which(program, path=process.environment()["PATH"]) is None:
            raise HostError(
                f"--network {network.kind}: {program} is not installed",
                f"install the package {package}, or boot with --network user",
            )
    try:
        os.close(os.open(_TUN, os.O_RDWR))
    except OSError as error:
        raise HostError(
            f"--network {network.kind}: cannot open {_TUN}: {error.strerror}",
            "load the module tun, or give the container the device (--device /dev/net/tun)",
        ) from error


def behind(network: Management, ports: Iterable[int], work: Callable[[Link], T]) -> T:
    """Do something while the router runs.

    :param ports: of the guest, that are to be reached
    :raises HostError: this host does not allow it
    :raises MkimageError: the router failed
    """
    require(network)
    keys = [(version, port) for version in network.addresses for port in ports]
    listeners = {key: socket.create_server(("127.0.0.1", 0)) for key in keys}
    ours, theirs = socket.socketpair()
    done: list[T] = []

    def meanwhile(ended: int) -> None:
        link = _receive(network, listeners, ours, ended)
        try:
            done.append(work(link))
        finally:
            os.close(link.tap)
            for heartbeat in link.heartbeats.values():
                heartbeat.close()
        ours.sendall(b".")

    with contextlib.ExitStack() as stack:
        for owned in (ours, theirs, *listeners.values()):
            stack.enter_context(owned)
        userns.run(lambda: _serve(network, listeners, theirs), id_map=id_maps.own(), meanwhile=meanwhile)
    return done[0]


def _receive(network: Management, listeners: Listeners, ours: socket.socket, ended: int) -> Link:
    """Take the descriptors; UnwantedError when the router failed, which has the say then."""
    found: list[int] = []
    for count in (len(network.subnets), 1):
        if ended in select.select([ours.fileno(), ended], [], [], _START_SECONDS)[0]:
            raise UnwantedError("the router failed")
        found += socket.recv_fds(ours, 1, count)[1]
    *heartbeats, tap = found
    if len(heartbeats) != len(network.subnets):
        raise MkimageError("the router did not start in time")
    return Link(
        tap,
        {key: listener.getsockname()[1] for key, listener in listeners.items()},
        dict(zip(network.controllers.values(), (socket.socket(fileno=fd) for fd in heartbeats), strict=True)),
    )


# --- in the namespaces ---------------------------------------------------------------------------------------------


def _serve(network: Management, listeners: Listeners, theirs: socket.socket) -> None:
    """Be the router until the other side says so; what is started here ends with the pid namespace."""
    userns.without_network()
    tap = open_tap(TAP)
    _ip(f"link set {TAP} mtu {network.mtu} up", f"link add {_NEAR} mtu {network.mtu} type veth peer name {_FAR}")
    answers, go = os.pipe(), os.pipe()
    controller = os.fork()
    if controller == 0:
        os.close(answers[0])
        _be_controller(network, listeners, theirs, answers[1], go[0])
    os.close(answers[1])
    try:
        _connect(network, controller, answers[0], go[1])
        with _start_server(network) as server:
            socket.send_fds(theirs, [b"t"], [tap])
            os.close(tap)
            _wait(theirs, server)
    finally:
        # It has all descriptors of this process, the pipe among them whose end says that this function has returned.
        os.kill(controller, signal.SIGKILL)
        os.waitpid(controller, 0)


def _connect(network: Management, controller: int, answers: int, go: int) -> None:
    """Lay the cable to the controller, and be a gateway."""
    with open(answers, encoding="utf-8") as answer:
        _agree(answer)
        _ip(f"link set {_FAR} netns {controller}", f"link set {_NEAR} up")
        for subnet in network.subnets:
            _route(subnet)
        os.write(go, b"g")
        _agree(answer)


def _agree(answer: TextIO) -> None:
    """Wait until the controller's side is done with what it does."""
    said = answer.readline().strip()
    if said != _DONE:
        raise MkimageError(f"the controller's network cannot be set up: {said or 'its process ended'}")


def _be_controller(network: Management, listeners: Listeners, theirs: socket.socket, answers: int, go: int) -> None:
    """Stand behind the router; never returns."""
    try:
        with open(answers, "w", buffering=1, encoding="utf-8") as answer:
            try:
                userns.without_network()
                answer.write(f"{_DONE}\n")
                os.read(go, 1)
                heartbeats = _settle(network)
                socket.send_fds(theirs, [b"h"], [heartbeat.fileno() for heartbeat in heartbeats])
                relay.start({listener: (network.addresses[key[0]], key[1]) for key, listener in listeners.items()})
                answer.write(f"{_DONE}\n")
            except (OSError, MkimageError) as error:
                answer.write(f"{error}\n")
                return
        threading.Event().wait()
    finally:
        os._exit(1)


def _settle(network: Management) -> list[socket.socket]:
    """Take the controller's addresses; the sockets on which heartbeats arrive."""
    _ip("link set lo up", f"link set {_FAR} mtu {network.mtu} up")
    heartbeats = []
    for version, address in network.controllers.items():
        router = ipaddress.ip_interface(_ROUTER[version])
        _ip(
            f"address add {address}/{router.network.prefixlen} dev {_FAR}{_NODAD[version]}",
            f"route add default via {router.ip}",
        )
        heartbeat = socket.socket(_FAMILY[version], socket.SOCK_DGRAM)
        heartbeat.bind((address, HEARTBEAT_PORT))
        heartbeats.append(heartbeat)
    return heartbeats


def _route(subnet: Subnet) -> None:
    """Be the gateway of a subnet."""
    version = subnet.version
    _ip(
        f"address add {subnet.gateway}/{subnet.address.network.prefixlen} dev {TAP}{_NODAD[version]}",
        f"address add {_ROUTER[version]} dev {_NEAR}{_NODAD[version]}",
    )
    try:
        _FORWARDING[version].write_text("1")
    except OSError as error:
        raise HostError(
            f"{_FORWARDING[version]} cannot be written: {error.strerror}",
            "in a container: let it write there (--privileged, or --security-opt systempaths=unconfined)",
        ) from error


def open_tap(name: str) -> int:
    """Make a tap device in this network namespace; it lasts as long as a descriptor of it is open."""
    tap = os.open(_TUN, os.O_RDWR)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        raise HostError(f"{_TUN}: cannot make a tap device: {error.strerror}", userns.SEE_CHECK) from error
    return tap


def _ip(*commands: str) -> None:
    """Run ip(8)."""
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
        env=process.environment(),
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())
        raise HostError(f"ip refused one of: {'; '.join(commands)} ({reason})", userns.SEE_CHECK)


# --- the DHCP server -----------------------------------------------------------------------------------------------


def server_options(network: Management) -> list[str]:
    """Return what the server is told; [] when the guest asks nobody.

    It does not send the MTU, neither with DHCP (option 26) nor in router advertisements: Neutron's would, and hide a
    guest that does not read it from the config drive.
    """
    options = [
        option
        for subnet in network.subnets
        for option in {
            Mode.STATIC: (),
            # By the card's address, so that it is the same for whatever client the guest has.
            Mode.DHCP: (
                f"--dhcp-range={subnet.address.ip},{subnet.address.ip},{subnet.address.netmask},1h",
                f"--dhcp-host={MAC},{subnet.address.ip}",
            ),
            Mode.SLAAC: ("--enable-ra", f"--dhcp-range={subnet.address.network.network_address},ra-only"),
            Mode.STATEFUL: (
                "--enable-ra",
                f"--dhcp-range={subnet.address.ip},{subnet.address.ip},{subnet.address.network.prefixlen},1h",
            ),
        }[subnet.mode]
    ]
    if "--enable-ra" in options:
        options.append(f"--ra-param={TAP},mtu:off,60")
    return options


def _start_server(network: Management) -> contextlib.AbstractContextManager[subprocess.Popen[bytes] | None]:
    """Start the server, if the guest asks one, and wait until it is ready."""
    options = server_options(network)
    if not options:
        return contextlib.nullcontext()
    # --no-daemon: it stays our child and the user that it is; there is nobody else in this user namespace.
    server = subprocess.Popen(
        ["dnsmasq", "--no-daemon", *_SERVER, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=process.environment(),
    )
    assert server.stdout is not None
    said: list[str] = []
    for line in server.stdout:
        said.append(line.decode(errors="replace").strip())
        if " started," in said[-1]:
            return server
    raise MkimageError(f"dnsmasq did not start: {said[-1] if said else 'no message'}", tail=said[-10:])


def _wait(theirs: socket.socket, server: subprocess.Popen[bytes] | None) -> None:
    """Go on until the other side says that it is done, or the server has ended."""
    streams = [server.stdout.fileno()] if server and server.stdout else []
    said, ended = b"", False
    while not ended and theirs.fileno() not in select.select([theirs.fileno(), *streams], [], [])[0]:
        chunk = os.read(streams[0], 4096)
        said, ended = (said + chunk)[-4096:], not chunk
    if server is not None:
        if ended or server.poll() is not None:
            raise MkimageError("dnsmasq ended unexpectedly", tail=said.decode(errors="replace").splitlines()[-10:])
        server.kill()
