"""A fake of the amphora agent: its answers over real mutual TLS, for what a real agent does not do on demand."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amphora_mkimage.boot import agent

Answer = tuple[int, object]
#: What an agent answers that is well, by the request without the identifiers in it.
WELL: dict[str, Answer] = {
    "GET /": (200, {"api_version": "1.0"}),
    "GET /1.0/info": (200, {"haproxy_version": "3.0", "keepalived_version": "2.3", "ipvsadm_version": "1.31"}),
    "GET /1.0/details": (200, {"cpu_count": 2, "memory": {"total": 1 << 20}}),
    "POST /1.0/plug/vip": (202, {"message": "OK", "details": "plugged"}),
    "PUT /1.0/loadbalancer/haproxy": (202, {"message": "OK"}),
    "PUT /1.0/loadbalancer/start": (202, {"message": "OK"}),
    "PUT /1.0/loadbalancer/reload": (202, {"message": "OK"}),
    "DELETE /1.0/listeners": (200, {"message": "OK"}),
}


class FakeAgent:
    """Serves answers and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = dict(WELL)
        self.requests: list[tuple[str, bytes]] = []
        self.port = 0

    def answer(self, request: str) -> Answer:
        method, _, path = request.partition(" ")
        words = [word for word in path.split("/") if "-" not in word and not word.startswith("10.")]
        found = self.answers.get(f"{method} {'/'.join(words)}", (404, {"error": "unknown"}))
        return found() if callable(found) else found


@contextmanager
def serving(identity: agent.Identity, clients: str = "client_ca.pem", *, anyone: bool = False) -> Iterator[FakeAgent]:
    """Serve the way the agent does: with its certificate, and only to clients of one authority.

    :param clients: the authority, by its file's name
    :param anyone: let clients without a certificate in too
    """
    fake = FakeAgent()

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = f"{self.command} {self.path}"
            fake.requests.append((request, content))
            status, document = fake.answer(request)
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 (http.server wants these names)

        def log_message(self, *_: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.directory / "server.pem", identity.directory / "server.key")
    context.load_verify_locations(identity.directory / clients)
    context.verify_mode = ssl.CERT_NONE if anyone else ssl.CERT_REQUIRED
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # The handshake belongs to the thread of the connection, or one that fails would hold up all others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        fake.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
