"""HAProxy's configuration and its answer; a real HTTP server, and haproxy itself where it is installed."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amphora_mkimage.boot import haproxy
from amphora_mkimage.boot.verdict import expected_answer
from amphora_mkimage.errors import BadValueError

#: In qemu's user network.
GUEST = {4: "10.0.2.15"}
HTTP = "defaults\n mode http\nfrontend f\n"


@pytest.mark.parametrize(
    ("config", "port"),
    [
        (f"{HTTP} bind :80\n", 80),
        (f"{HTTP} bind *:8080 maxconn 5 # :81\n", 8080),
        (f"{HTTP} bind 0.0.0.0:81,192.0.2.1:82\n", 81),
        (f"{HTTP} bind 192.0.2.1:82,ipv4@*:83\n", 83),
        (f"{HTTP} bind :::84 v4v6\n", 84),
        (f"{HTTP} bind [::]:84\n", 84),
        (f"{HTTP} bind :9000-9010\n", 9000),
        (f"{HTTP} bind *:443 ssl crt a.pem\n bind *:80\n", 80),
        ("listen l\n bind *:85\n mode http\n", 85),
        ("frontend t\n mode tcp\n bind *:22\nfrontend h\n bind *:86\n mode http\n", 86),
        ("defaults\n mode http\nfrontend t\n mode tcp\n bind *:22\nfrontend h\n bind *:87\n", 87),
    ],
)
def test_the_port_is_found(config: str, port: int) -> None:
    assert haproxy.http_port(config, GUEST) == port


@pytest.mark.parametrize(
    "config",
    [
        "",
        "global\n daemon\n",
        "frontend f\n bind *:80\n",  # the mode is tcp unless told otherwise
        f"{HTTP} bind 127.0.0.1:80\n",
        f"{HTTP} bind 192.0.2.1:80\n",
        f"{HTTP} bind /run/sock\n",
        f"{HTTP} bind :::80 v6only\n",
        f"{HTTP} bind ipv6@:::80\n",
        f"{HTTP} bind *:443 ssl crt a.pem\n",
    ],
)
def test_a_configuration_that_cannot_be_asked_is_refused(config: str) -> None:
    with pytest.raises(BadValueError, match="haproxy-config"):
        haproxy.http_port(config, GUEST)


@pytest.mark.parametrize("bind", [":::80", "[::]:80 v6only", "[2001:db8:a::50]:80", "ipv6@:::80"])
def test_where_a_guest_with_ipv6_is_asked(bind: str) -> None:
    guest = {6: "2001:db8:a::50"}
    assert haproxy.http_port(f"{HTTP} bind :79\n bind 192.0.2.50:79\n bind {bind}\n", guest) == 80


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValueError, match="missing"):
        haproxy.read_config(tmp_path / "missing")


def test_the_default_configuration() -> None:
    text = haproxy.read_config(haproxy.DEFAULT_CONFIG)
    assert haproxy.http_port(text, GUEST) == 80
    assert haproxy.DEFAULT_ANSWER.decode() in text
    assert expected_answer(haproxy.DEFAULT_CONFIG) == haproxy.DEFAULT_ANSWER
    assert expected_answer(Path("/mine.cfg")) is None


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_haproxy_accepts_the_default_configuration() -> None:
    subprocess.run(["haproxy", "-c", "-f", str(haproxy.DEFAULT_CONFIG)], check=True)


class Handler(http.server.BaseHTTPRequestHandler):
    status, body = 200, b'{"api_version": "1.0"}'

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        yield running
        running.shutdown()


def serve(server: http.server.ThreadingHTTPServer) -> int:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def test_an_answer_is_an_answer(server: http.server.ThreadingHTTPServer) -> None:
    answer = haproxy.ask(serve(server), 10)
    assert (answer.status, answer.body) == (200, Handler.body)
    assert answer.headers["server"].startswith("BaseHTTP")


def test_silence_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(TimeoutError):
        haproxy.ask(listening.getsockname()[1], 0.2)


def test_another_protocol_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ValueError, match="not HTTP"):
            haproxy.ask(listening.getsockname()[1], 10)
        thread.join()
