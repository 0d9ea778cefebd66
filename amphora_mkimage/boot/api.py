"""The amphora agent's REST API, spoken as Octavia's controller speaks it: mutual TLS, version 1.0.

What the calls are: octavia/amphorae/backends/agent/api_server/server.py and
octavia/amphorae/drivers/haproxy/rest_api_driver.py, release 19.0.0.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any

from amphora_mkimage.boot.agent import Identity
from amphora_mkimage.boot.text import clean

#: An emulated guest takes 45 s to start haproxy; Octavia's own default (rest_request_read_timeout) is 60.
REQUEST_SECONDS = 240.0
#: More for each GiB of the guest: HAProxy's TLS session cache is sized by it, and its unit fills one for `haproxy -c`
#: before each start and reload, besides its own (2 times 5 s without emulation at 4 GiB).
REQUEST_SECONDS_PER_GIB = 60.0
PREFIX = "/1.0"

_MAX_ANSWER = 1 << 20
_MAX_MESSAGE = 400


def request_seconds(memory: int) -> float:
    """Return how long a request may take.

    :param memory: of the guest, in MiB
    """
    return REQUEST_SECONDS + REQUEST_SECONDS_PER_GIB * max(0.0, memory / 1024 - 1)


class AgentError(Exception):
    """The agent did not do what it was asked, or something else answered."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(clean(text).replace("\n", " ").strip()[:_MAX_MESSAGE])
        self.status = status  #: HTTP status of the answer; 0 when there was none


class Client:
    """A client of one amphora's agent.

    :param identity: whose certificates are shown and demanded
    :param port: port on 127.0.0.1 that leads to the agent
    :param timeout: seconds that it may take to connect, and to answer
    """

    def __init__(self, identity: Identity, port: int, timeout: float = REQUEST_SECONDS) -> None:
        self.identity, self.port, self.timeout = identity, port, timeout

    def version(self) -> str:
        """Ask for the version of the API, which is what a controller polls a new amphora for.

        :raises OSError: no connection, no TLS handshake, or no answer in time
        :raises AgentError: something answered that is not the agent
        """
        found = self.call("GET", "/").get("api_version")
        if not isinstance(found, str):
            raise AgentError("the agent's answer has no api_version")
        return clean(found)[:_MAX_MESSAGE]

    def call(
        self, method: str, path: str, body: bytes | Mapping[str, object] | None = None, *, certificate: str = "client"
    ) -> dict[str, Any]:
        """Make one request, and return the document that was answered.

        :param body: text of a configuration, or what is sent as JSON
        :param certificate: which certificate to show, by its file's name without suffix; "" for none
        :raises OSError: no connection, no TLS handshake, or no answer in time
        :raises AgentError: the answer is an error, or not the agent's
        """
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        if isinstance(body, Mapping):
            headers, body = {"Content-Type": "application/json"}, json.dumps(body).encode()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=self.timeout, context=self._context(certificate)
        )
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read(_MAX_ANSWER)
        except http.client.HTTPException as error:
            raise AgentError(f"the agent's answer is not HTTP: {error!r}") from error
        finally:
            connection.close()
        return _document(answer.status, content)

    def _context(self, certificate: str) -> ssl.SSLContext:
        directory = self.identity.directory
        context = ssl.create_default_context(cafile=str(directory / "server_ca.pem"))
        if certificate:
            context.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
        # The certificate names the amphora, not the address, and there is one authority for one amphora here.
        context.check_hostname = False
        return context


def _document(status: int, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        document = None
    if status >= http.client.BAD_REQUEST:
        fields = document if isinstance(document, dict) else {}
        said = [str(fields[name]) for name in ("message", "error", "details") if fields.get(name)]
        raise AgentError(f"status {status}: {'; '.join(said) or content.decode(errors='replace')}", status)
    if not isinstance(document, dict):
        raise AgentError("the agent's answer is no JSON object", status)
    return document
