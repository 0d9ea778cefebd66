"""The client of the agent's API against a fake agent, over real mutual TLS."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

import pytest
from fake_agent import serving

from amphora_mkimage.boot import agent
from amphora_mkimage.boot.api import AgentError, Client, request_seconds
from amphora_mkimage.boot.management import NETWORKS, Kind
from amphora_mkimage.console import Console

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture
def identity(tmp_path: Path) -> agent.Identity:
    return agent.make_identity(tmp_path, Console())


def test_the_agent_is_asked_with_a_client_certificate(identity: agent.Identity) -> None:
    with serving(identity) as fake:
        assert Client(identity, fake.port, 10).version() == "1.0"


def test_a_larger_guest_has_more_time() -> None:
    assert [request_seconds(memory) for memory in (512, 1024, 4096)] == [240, 240, 420]


def test_an_agent_with_a_foreign_certificate_is_not_believed(
    identity: agent.Identity, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = agent.make_identity(tmp_path_factory.mktemp("other"), Console())
    with serving(other) as fake, pytest.raises(ssl.SSLCertVerificationError):
        Client(identity, fake.port, 10).version()


@pytest.mark.parametrize("certificate", ["", "client"])
def test_an_agent_that_refuses_our_certificate_does_not_answer(identity: agent.Identity, certificate: str) -> None:
    with serving(identity, "server_ca.pem") as fake, pytest.raises((OSError, AgentError)):
        Client(identity, fake.port, 10).call("GET", "/", certificate=certificate)
    assert fake.requests == []


@pytest.mark.parametrize("answer", [(200, []), (200, {}), (200, {"api_version": 1}), (200, b"<html>")])
def test_something_else_than_the_agent_is_not_believed(identity: agent.Identity, answer: tuple[int, object]) -> None:
    with serving(identity) as fake:
        fake.answers["GET /"] = answer
        with pytest.raises(AgentError):
            Client(identity, fake.port, 10).version()


def test_bodies(identity: agent.Identity) -> None:
    with serving(identity) as fake:
        client = Client(identity, fake.port, 10)
        client.call("POST", "/1.0/plug/vip/10.99.0.50", {"mtu": 1450})
        client.call("PUT", "/1.0/loadbalancer/a-b/c-d/haproxy", b"global\n")
    (first, document), (second, text) = fake.requests
    assert (first, json.loads(document)) == ("POST /1.0/plug/vip/10.99.0.50", {"mtu": 1450})
    assert (second, text) == ("PUT /1.0/loadbalancer/a-b/c-d/haproxy", b"global\n")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"message": "Invalid request", "details": "[ALERT]\nunknown\x1b[31m keyword"}, "Invalid request; [ALERT]"),
        ({"error": "500 Internal", "http_code": 500}, "500 Internal"),
        (b"\xff nonsense", "nonsense"),
    ],
)
def test_what_the_agent_says_is_told_and_fit_for_a_terminal(
    identity: agent.Identity, document: object, text: str
) -> None:
    with serving(identity) as fake:
        fake.answers["GET /1.0/info"] = (500, document)
        with pytest.raises(AgentError) as caught:
            Client(identity, fake.port, 10).call("GET", "/1.0/info")
    assert caught.value.status == 500
    assert text in str(caught.value)
    assert not set("\n\x1b") & set(str(caught.value))


def test_the_heartbeat_key_is_not_shown(identity: agent.Identity) -> None:
    assert identity.heartbeat_key not in repr(identity)
    assert identity.heartbeat_key in identity.files(NETWORKS[Kind.USER])[agent.CONFIG]
