"""An HTTP server on loopback that serves files from memory, and breaks off, lies or stalls where a test tells it to."""

from __future__ import annotations

import contextlib
import http.server
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path


@dataclass
class Fault:
    """What is wrong with one path; the default is nothing.

    :param statuses: answers to give first, one a request
    :param headers: to send along with every answer
    :param cut: break the connection after so many bytes of each body
    :param cuts: how many bodies are cut
    :param length: Content-Length to claim
    :param no_length: send no Content-Length
    :param stall: send nothing more after so many bytes of a body, and keep the connection
    :param trickle: seconds to wait after each byte
    """

    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    location: str = ""
    cut: int | None = None
    cuts: int = 1_000_000
    length: int | None = None
    no_length: bool = False
    ignore_ranges: bool = False
    wrong_range: str = ""
    endless: bool = False
    stall: int | None = None
    stalls: int = 1_000_000
    trickle: float = 0.0
    login: str = ""  #: the Authorization header that is required


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    path: str
    headers: dict[str, str]


class FaultServer:
    """Files, their faults, and what was asked for."""

    def __init__(self, certificate: Path | None, host: str = "127.0.0.1") -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.faults: dict[str, Fault] = {}
        self.seen: list[Seen] = []
        self.sent = 0  #: bytes of bodies
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = http.server.ThreadingHTTPServer((host, 0), handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if certificate else 'http'}://{name}:{self.http.server_port}"

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def ranges(self, path: str) -> list[str]:
        """The Range header of each request for a path, "" for none."""
        return [seen.headers.get("range", "") for seen in self.asked(path)]


@contextlib.contextmanager
def running(certificate: Path | None = None, host: str = "127.0.0.1") -> Iterator[FaultServer]:
    server = FaultServer(certificate, host)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def make_certificate(path: Path, address: str = "IP:127.0.0.1") -> Path:
    """A certificate for loopback that is its own CA, with its key in the same file."""
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=throw-away", "-addext", f"subjectAltName={address}"]
    subprocess.run([*argv, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    certificate = Path(f"{path}.crt")
    path.write_text(path.read_text() + certificate.read_text())
    return path


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: FaultServer

    def do_GET(self) -> None:
        owner = self.owner
        path = self.path.partition("?")[0]
        owner.seen.append(Seen(path, {name.lower(): value for name, value in self.headers.items()}))
        fault = owner.faults.get(path, Fault())
        content = owner.files.get(path)
        if fault.statuses:
            return self._empty(fault.statuses.pop(0), fault)
        if fault.location:
            return self._empty(302, fault)
        if fault.login and self.headers.get("Authorization") != fault.login:
            return self._empty(401, fault)
        if content is None:
            return self._empty(404, fault)
        return self._content(path, content, fault)

    def do_CONNECT(self) -> None:
        """Another host is asked for through a proxy, which this is not."""
        self.owner.seen.append(Seen(self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_error(HTTPStatus.NOT_IMPLEMENTED)

    def _empty(self, status: int, fault: Fault) -> None:
        self.send_response(status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        if fault.location:
            self.send_header("Location", fault.location)
        self.send_header("Content-Length", str(fault.length or 0))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client had enough
            while fault.length:
                self._send(bytes(1 << 16))

    def _content(self, path: str, content: bytes, fault: Fault) -> None:
        etag = self.owner.etags.get(path, "")
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        offset = 0
        if match and not fault.ignore_ranges and (condition is None or condition == etag):
            offset = int(match[1])
            if offset >= len(content):
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            proper = f"bytes {offset}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", fault.wrong_range or proper)
        else:
            self.send_response(HTTPStatus.OK)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        if etag:
            self.send_header("ETag", etag)
        body = content[offset:]
        if not fault.endless and not fault.no_length:
            self.send_header("Content-Length", str(len(body) if fault.length is None else fault.length))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client had enough
            self._body(body, fault)

    def _body(self, body: bytes, fault: Fault) -> None:
        if fault.cut is not None and fault.cuts > 0:
            fault.cuts -= 1
            body = body[: fault.cut]
        if fault.stall is not None and fault.stalls > 0:
            fault.stalls -= 1
            self._send(body[: fault.stall])
            self.owner.closing.wait(30)
            return
        if fault.trickle:
            for number in range(len(body)):
                self._send(body[number : number + 1])
                if self.owner.closing.wait(fault.trickle):
                    return
        self._send(body)
        while fault.endless:
            self._send(body)

    def _send(self, part: bytes) -> None:
        self.owner.sent += len(part)  # before, because the client may be done before this thread runs again
        self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass
