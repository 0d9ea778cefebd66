"""The controller's judgement, tried on a fake agent and a fake haproxy: a real amphora is well, or broken in one way.

The whole run against a booted image: tests/boot/test_boot.py.
"""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fake_agent import FakeAgent, serving
from test_boot_heartbeat import HEADER, record, udp, wrap

from amphora_mkimage.boot import agent, controller, vip
from amphora_mkimage.boot.api import AgentError, Client
from amphora_mkimage.boot.controller import Controller, LoadBalancer, Step
from amphora_mkimage.boot.heartbeat import Capture
from amphora_mkimage.boot.management import NETWORKS, Kind
from amphora_mkimage.boot.restart import Power
from amphora_mkimage.console import Console

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
MANAGER = NETWORKS[Kind.USER].controllers[4]
T = TypeVar("T")


class FakeAmphora:
    """An agent, a haproxy behind the VIP, and the machine that both are in; all well unless told otherwise."""

    def __init__(self, identity: agent.Identity, fake: FakeAgent, directory: Path) -> None:
        self.identity, self.agent, self.wire = identity, fake, directory / "wire"
        self.token = b""
        self.key = identity.heartbeat_key
        self.sender, self.member = str(identity.amphora_id), "UP"
        self.reloads = self.deletes = True
        self.revisions: list[str] = []
        self.restarts: list[Power] = []
        self.refuses: Power | None = None
        self.controller = Controller(
            Client(identity, fake.port, 10), Capture(self.wire, MANAGER), self, lambda name: None
        )

    def plug(self, network: vip.Network) -> dict[int, int]:
        self.token = network.token.encode()
        return {80: self.port}

    def restart(self, power: Power, client: Client, mac: str) -> str:
        assert mac == self.controller.network.mac
        self.restarts.append(power)
        if power is self.refuses:
            raise AgentError("not there")
        return "API 1.0"

    def in_background(self, work: Callable[[], T]) -> T:
        return work()

    def follow(self, done: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + min(seconds, 0.2)
        while time.monotonic() < end:
            if done():
                return True
            time.sleep(0.02)
        return False

    @property
    def port(self) -> int:
        return self._port

    def serve(self) -> http.server.ThreadingHTTPServer:
        amphora = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = [request for request, _ in amphora.agent.requests]
                if amphora.deletes and any(request.startswith("DELETE") for request in asked):
                    self.close_connection = True
                    return
                reloaded = amphora.reloads and any(request.endswith("/reload") for request in asked)
                self.send_response(200)
                self.send_header(controller.HEADER, "2" if reloaded else "1")
                self.end_headers()
                self.wfile.write(amphora.token)

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def beat(self) -> None:
        """Send the heartbeats of an amphora that has taken a configuration."""
        balancer = self.controller.balancer
        message = {"id": self.sender, "seq": 1, "listeners": {}, "pools": {}}
        full = {
            **message,
            "seq": 2,
            "listeners": {balancer.listener: {"status": "OPEN"}},
            "pools": {f"{balancer.pool}:{balancer.listener}": {"members": {balancer.member: self.member}}},
        }
        self.wire.write_bytes(HEADER + b"".join(record(udp(wrap(beat, self.key))) for beat in (message, full)))

    def run(self) -> list[Step]:
        self.beat()
        return self.controller.run()

    def failure(self) -> tuple[str, str]:
        """Run; name and error of the step that fails, which has to be the last."""
        *before, last = self.run()
        assert [step.error for step in before] == [""] * len(before)
        return last.name, last.error


@pytest.fixture
def amphora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAmphora]:
    monkeypatch.setattr(controller, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(controller, "_PLUG_SECONDS", 0.3)
    (tmp_path / "identity").mkdir()
    identity = agent.make_identity(tmp_path / "identity", Console())
    with serving(identity) as fake:
        made = FakeAmphora(identity, fake, tmp_path)
        server = made.serve()
        try:
            yield made
        finally:
            server.shutdown()
            server.server_close()


def test_all_is_well(amphora: FakeAmphora) -> None:
    steps = amphora.run()
    assert [(step.name, step.error) for step in steps] == [
        (name, "")
        for name in (
            *("info", "details", "refuse strangers", "plug VIP", "upload configuration"),
            *("start", "traffic", "reload", "heartbeat", "delete"),
        )
    ]
    balancer, own = amphora.controller.balancer.load_balancer, amphora.identity.amphora_id
    asked = [request for request, _ in amphora.agent.requests]
    # Strangers do not get as far as a request.
    assert asked == [
        "GET /1.0/info",
        "GET /1.0/details",
        "POST /1.0/plug/vip/10.99.0.50",
        f"PUT /1.0/loadbalancer/{own}/{balancer}/haproxy",
        f"PUT /1.0/loadbalancer/{balancer}/start",
        f"PUT /1.0/loadbalancer/{own}/{balancer}/haproxy",
        f"PUT /1.0/loadbalancer/{balancer}/reload",
        f"DELETE /1.0/listeners/{balancer}",
    ]


@pytest.mark.parametrize(
    ("request_", "answer", "step", "error"),
    [
        ("GET /1.0/info", (200, {"haproxy_version": "3", "keepalived_version": "2"}), "info", "lacks versions"),
        ("GET /1.0/info", (500, {"error": "dpkg-query failed"}), "info", "status 500: dpkg-query failed"),
        ("GET /1.0/details", (200, {"cpu_count": 1}), "details", "no memory"),
        ("POST /1.0/plug/vip", (500, {"message": "masquerade"}), "plug VIP", "status 500: masquerade"),
        ("POST /1.0/plug/vip", (404, {"details": "No interface"}), "plug VIP", "status 404: No interface"),
        ("PUT /1.0/loadbalancer/haproxy", (400, {"message": "bad"}), "upload configuration", "status 400: bad"),
        ("PUT /1.0/loadbalancer/start", (500, {"details": "unit"}), "start", "status 500: unit"),
        ("PUT /1.0/loadbalancer/reload", (500, {"details": "unit"}), "reload", "status 500: unit"),
        ("DELETE /1.0/listeners", (500, {"details": "unit"}), "delete", "status 500: unit"),
    ],
)
def test_an_error_of_the_agent_ends_the_run(
    amphora: FakeAmphora, request_: str, answer: tuple[int, object], step: str, error: str
) -> None:
    amphora.agent.answers[request_] = answer
    name, text = amphora.failure()
    assert name == step
    assert error in text


def test_a_card_that_the_kernel_sees_late(amphora: FakeAmphora) -> None:
    answers = iter([(404, {"details": "No suitable network interface found"}), (202, {"details": "plugged"})])
    amphora.agent.answers["POST /1.0/plug/vip"] = lambda: next(answers)
    assert amphora.run()[-1].error == ""
    assert [request for request, _ in amphora.agent.requests].count("POST /1.0/plug/vip/10.99.0.50") == 2


@pytest.mark.parametrize("clients", ["anyone", "server_ca.pem"])
def test_an_agent_that_answers_strangers(tmp_path: Path, amphora: FakeAmphora, clients: str) -> None:
    """One that asks for no certificate, and one that believes the authority of the agents' own certificates."""
    authorities = tmp_path / "identity/both.pem"
    both = [(tmp_path / "identity" / name).read_text() for name in ("client_ca.pem", "server_ca.pem")]
    authorities.write_text("".join(both))
    with serving(amphora.identity, "both.pem", anyone=clients == "anyone") as fake:
        amphora.agent, amphora.controller.client = fake, Client(amphora.identity, fake.port, 10)
        name, error = amphora.failure()
    assert (name, "got an answer" in error) == ("refuse strangers", True)


def test_a_member_that_is_not_reached(amphora: FakeAmphora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeAmphora, "plug", lambda self, network: {80: self.port})
    name, error = amphora.failure()
    assert name == "traffic"
    assert "the last was: status 200" in error


def test_a_reload_that_changes_nothing(amphora: FakeAmphora) -> None:
    amphora.reloads = False
    name, error = amphora.failure()
    assert (name, f"{controller.HEADER} 1" in error) == ("reload", True)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("key", "another", "wrong HMAC"),
        ("sender", "another", "another amphora"),
        ("member", "DOWN", "2 heartbeats came, none"),
    ],
)
def test_heartbeats_that_are_not_right(amphora: FakeAmphora, field: str, value: str, error: str) -> None:
    setattr(amphora, field, value)
    name, text = amphora.failure()
    assert (name, error in text) == ("heartbeat", True)


def test_no_heartbeat(amphora: FakeAmphora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeAmphora, "beat", lambda self: None)
    assert amphora.failure() == ("heartbeat", "0 heartbeats came, none of which says that listener and member are up")


def test_an_address_that_no_heartbeat_reaches(amphora: FakeAmphora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "silent", lambda self: ["2001:db8:b::10"])
    assert amphora.failure() == ("heartbeat", "no heartbeat reached 2001:db8:b::10; 2 came elsewhere")


def test_an_address_at_which_the_agent_is_not(amphora: FakeAmphora) -> None:
    amphora.controller.also = [Client(amphora.identity, amphora.agent.port, 10)]
    assert [step.name for step in amphora.run() if not step.error][:2] == ["info", "other addresses"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    amphora.controller.also, amphora.controller.steps = [Client(amphora.identity, port, 10)], []
    assert amphora.failure()[0] == "other addresses"


def test_the_guest_is_restarted_between_the_heartbeat_and_the_deletion(amphora: FakeAmphora) -> None:
    amphora.controller.reboot = True
    steps = amphora.run()
    assert [(step.name, step.error) for step in steps[-4:]] == [
        *(("heartbeat", ""), ("power button", ""), ("reset", ""), ("delete", "")),
    ]
    assert amphora.restarts == [Power.BUTTON, Power.RESET]


@pytest.mark.parametrize("power", Power)
def test_an_amphora_that_does_not_come_back(amphora: FakeAmphora, power: Power) -> None:
    amphora.controller.reboot, amphora.refuses = True, power
    assert amphora.failure() == (power, "not there")


def test_a_member_that_is_not_reached_after_a_restart(amphora: FakeAmphora, monkeypatch: pytest.MonkeyPatch) -> None:
    amphora.controller.reboot = True
    monkeypatch.setattr(FakeAmphora, "restart", lambda self, *_: setattr(self, "token", b"another") or "")
    name, error = amphora.failure()
    assert (name, "no answer of the member" in error) == (Power.BUTTON, True)


def test_a_listener_that_stays(amphora: FakeAmphora) -> None:
    amphora.deletes = False
    name, error = amphora.failure()
    assert (name, "still answers" in error) == ("delete", True)


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_haproxy_accepts_the_configuration(tmp_path: Path) -> None:
    config = LoadBalancer().config(vip.Network(), "1")
    assert b"http-check send hdr Host member.amphora-mkimage.example\n" in config
    (tmp_path / "cfg").write_bytes(config)
    subprocess.run(["haproxy", "-c", "-f", str(tmp_path / "cfg")], check=True)
