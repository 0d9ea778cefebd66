"""Octavia's controller, as one amphora sees it: every step from the first question to the deletion of a listener.

It needs nothing of Octavia. The calls and their order are those of octavia/controller/worker and of the driver in
octavia/amphorae/drivers/haproxy, release 19.0.0.
"""

from __future__ import annotations

import functools
import http.client
import ssl
import string
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from amphora_mkimage.boot import haproxy, vip
from amphora_mkimage.boot.api import PREFIX, AgentError, Client
from amphora_mkimage.boot.config_drive import FILES
from amphora_mkimage.boot.heartbeat import Heartbeat, Heartbeats, unwrap
from amphora_mkimage.boot.restart import Power
from amphora_mkimage.errors import MkimageError

#: What the response header says before and after the reload.
HEADER = "X-Amphora-Mkimage"
#: The health monitor's domain name. Octavia renders one, and a version of HTTP, in this form since release 17; what
#: controllers before that send is refused by HAProxy 3, whatever the image.
DOMAIN = "member.amphora-mkimage.example"
#: For what the amphora does by itself: the member's first check, a heartbeat, haproxy's new process.
PATIENCE_SECONDS = 180.0
#: The kernel may not have seen the plugged card yet. Octavia waits as long (connection_retry_interval).
_RETRY_SECONDS = 5.0
_PLUG_SECONDS = 60.0
_TRAFFIC_SECONDS = 30.0

T = TypeVar("T")


class Host(Protocol):
    """What the controller needs of the machine and its observer."""

    def plug(self, network: vip.Network) -> dict[int, int]:
        """Plug the VIP's port; the ports on 127.0.0.1 that lead to those of the VIP."""

    def in_background(self, work: Callable[[], T]) -> T:
        """Do something that takes long while the machine is being observed; raises what the work raises."""

    def restart(self, power: Power, client: Client, mac: str) -> str:
        """Start the guest anew; what was found when it was up again."""

    def follow(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is done; False when the guest died, or the time is over."""


@dataclass(frozen=True)
class Step:
    """One step.

    :param detail: what was found, or ""
    :param error: why it failed, or ""
    """

    name: str
    seconds: float
    detail: str = ""
    error: str = ""


@dataclass(frozen=True)
class LoadBalancer:
    """Identifiers of one load balancer with a listener, a pool and a member."""

    load_balancer: str = field(default_factory=lambda: str(uuid.uuid4()))
    listener: str = field(default_factory=lambda: str(uuid.uuid4()))
    pool: str = field(default_factory=lambda: str(uuid.uuid4()))
    member: str = field(default_factory=lambda: str(uuid.uuid4()))

    def config(self, network: vip.Network, revision: str) -> bytes:
        """Write haproxy's configuration.

        :param network: of the virtual address; with one member
        :param revision: value of the response header :data:`HEADER`
        """
        template = string.Template((FILES / "loadbalancer.cfg").read_text(encoding="utf-8"))
        ((member_address, port),) = network.members
        values = {"base_path": "/var/lib/octavia", "vip": network.vip, "member_address": f"{member_address}:{port}"}
        return template.substitute(**vars(self), **values, header=HEADER, revision=revision, domain=DOMAIN).encode()


class Controller:
    """Drives one amphora.

    :param client: of its agent
    :param heartbeats: of its management network
    :param announce: called with the name of each step when it begins
    :param also: clients of the same agent at its other addresses
    :param reboot: have the guest restarted twice
    """

    def __init__(
        self,
        client: Client,
        heartbeats: Heartbeats,
        host: Host,
        announce: Callable[[str], None],
        also: Sequence[Client] = (),
        *,
        reboot: bool = False,
    ) -> None:
        self.also, self.reboot = also, reboot
        self.client, self.heartbeats, self.host, self.announce = client, heartbeats, host, announce
        self.steps: list[Step] = []
        self.network = vip.Network()
        self.balancer = LoadBalancer()
        self._ports: dict[int, int] = {}

    def run(self) -> list[Step]:
        """Do all steps, or all up to the first that fails."""
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("info", self._info),
            *([("other addresses", self._others)] if self.also else []),
            ("details", self._details),
            ("refuse strangers", self._strangers),
            ("plug VIP", self._plug),
            ("upload configuration", self._upload),
            ("start", self._start),
            ("traffic", self._traffic),
            ("reload", self._reload),
            ("heartbeat", self._heartbeat),
            *(([(power.value, functools.partial(self._restart, power)) for power in Power]) if self.reboot else []),
            ("delete", self._delete),
        )
        for name, work in steps:
            self.announce(name)
            begin, detail, error = time.monotonic(), "", ""
            try:
                detail = work()
            except (OSError, AgentError, MkimageError, ValueError) as raised:
                error = str(raised) or repr(raised)
            self.steps.append(Step(name, round(time.monotonic() - begin, 1), detail, error))
            if error:
                break
        return self.steps

    def _call(self, method: str, path: str, body: bytes | dict[str, object] | None = None) -> dict[str, object]:
        return self.host.in_background(lambda: self.client.call(method, PREFIX + path, body))

    def _info(self) -> str:
        info = self._call("GET", "/info")
        # Octavia reads them without a default: an amphora that lacks one never comes up.
        versions = [
            f"{name} {info[f'{name}_version']}" for name in ("haproxy", "keepalived", "ipvsadm") if _known(info, name)
        ]
        if len(versions) < 3:
            raise AgentError(f"/info lacks versions: {info}")
        return ", ".join(versions)

    def _others(self) -> str:
        """Ask the agent at its other addresses."""
        versions = [self.host.in_background(client.version) for client in self.also]
        return f"API {', '.join(versions)}"

    def _details(self) -> str:
        details = self._call("GET", "/details")
        # Asked for before each upload; memory and processors decide haproxy's settings.
        memory = details.get("memory")
        total = memory.get("total") if isinstance(memory, dict) else None
        if not isinstance(total, int):
            raise AgentError(f"/details has no memory: {details}")
        return f"{details.get('cpu_count')} CPUs, {total // 1024} MiB of memory"

    def _strangers(self) -> str:
        """Nobody without a certificate, and nobody with one of another authority, is answered."""
        for certificate in ("", "server"):
            try:
                self.host.in_background(functools.partial(self.client.call, "GET", "/", certificate=certificate))
            except TimeoutError:
                raise
            except (ssl.SSLError, ConnectionError):
                continue  # during the handshake, or with TLS 1.3 after it
            except AgentError as error:
                if error.status == 0:
                    continue  # the connection was closed before an answer
            raise AgentError("a client without a certificate of the controller's authority got an answer")
        return "without certificate, and with one of another authority"

    def _plug(self) -> str:
        self._ports = self.host.plug(self.network)
        end = time.monotonic() + _PLUG_SECONDS
        while True:
            try:
                answer = self._call("POST", f"/plug/vip/{self.network.vip}", self.network.net_info())
                return str(answer.get("details", ""))
            except AgentError as error:
                if error.status != http.client.NOT_FOUND or time.monotonic() > end:
                    raise
            self.host.follow(lambda: False, _RETRY_SECONDS)

    def _upload(self, revision: str = "1") -> str:
        path = f"/loadbalancer/{self.client.identity.amphora_id}/{self.balancer.load_balancer}/haproxy"
        self._call("PUT", path, self.balancer.config(self.network, revision))
        return ""

    def _start(self) -> str:
        self._call("PUT", f"/loadbalancer/{self.balancer.load_balancer}/start")
        return ""

    def _traffic(self, revision: str = "1") -> str:
        """Wait until the member answers through the VIP; haproxy gives 503 until it has checked the member."""
        last = "no answer"

        def answered() -> bool:
            nonlocal last
            try:
                found = haproxy.ask(self._ports[80], _TRAFFIC_SECONDS)
            except (OSError, ValueError) as error:
                last = str(error)
                return False
            last = f"status {found.status}, {HEADER} {found.headers.get(HEADER.lower())}, {found.body[:80]!r}"
            right = found.body == self.network.token.encode() and found.headers.get(HEADER.lower()) == revision
            return found.status == http.client.OK and right

        if not self.host.in_background(lambda: _until(answered)):
            raise AgentError(f"no answer of the member through the VIP; the last was: {last}")
        return f"{self.network.vip}:80 to {self.network.members[0][0]}:80"

    def _reload(self) -> str:
        self._upload("2")
        self._call("PUT", f"/loadbalancer/{self.balancer.load_balancer}/reload")
        self._traffic("2")
        return "the new configuration answers"

    def _heartbeat(self) -> str:
        """Every heartbeat so far must be genuine, and one must tell that listener and member are up."""
        identity, seen, found = self.client.identity, 0, None

        def healthy(heartbeat: Heartbeat) -> bool:
            up = heartbeat.members.get(self.balancer.member) == "UP"
            return up and heartbeat.listeners.get(self.balancer.listener) == "OPEN"

        def arrived() -> bool:
            nonlocal seen, found
            for datagram in self.heartbeats.datagrams():
                heartbeat = unwrap(datagram, identity.heartbeat_key)
                if heartbeat.amphora_id != str(identity.amphora_id):
                    raise ValueError("a heartbeat comes from another amphora")
                seen += 1
                found = heartbeat if healthy(heartbeat) else found
            return found is not None and not self.heartbeats.silent()

        self.host.follow(arrived, PATIENCE_SECONDS)
        if silent := self.heartbeats.silent():
            raise AgentError(f"no heartbeat reached {' and '.join(silent)}; {seen} came elsewhere")
        if found is None:
            raise AgentError(f"{seen} heartbeats came, none of which says that listener and member are up")
        return f"number {found.sequence}: listener OPEN, member UP; HMAC of {seen} right"

    def _restart(self, power: Power) -> str:
        """Whatever happens to the machine, the load balancer is there again without anybody's help."""
        found = self.host.restart(power, self.client, self.network.mac)
        self._traffic("2")
        return f"{found} again, and the member through the VIP"

    def _delete(self) -> str:
        self._call("DELETE", f"/listeners/{self.balancer.load_balancer}")
        try:
            self.host.in_background(lambda: haproxy.ask(self._ports[80], _TRAFFIC_SECONDS))
        except (OSError, ValueError):
            return "the VIP no longer answers"
        raise AgentError("the VIP still answers after the deletion")


def _known(info: dict[str, object], name: str) -> bool:
    value = info.get(f"{name}_version")
    return isinstance(value, str) and bool(value.strip())


def _until(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True
