"""What an amphora and its controller know of each other: certificates, the agent's configuration, the heartbeat key."""

from __future__ import annotations

import secrets
import string
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from amphora_mkimage.boot.config_drive import FILES
from amphora_mkimage.boot.heartbeat import PORT as HEARTBEAT_PORT
from amphora_mkimage.boot.management import Management
from amphora_mkimage.console import Console
from amphora_mkimage.process import run

PORT = 9443
CONFIG = "/etc/octavia/amphora-agent.conf"
SERVER = "/etc/octavia/certs/server.pem"
CLIENT_CA = "/etc/octavia/certs/client_ca.pem"

_DAYS = "2"
#: Elliptic: an RSA key takes an emulated guest much longer to use.
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Identity:
    """Certificates of one boot: two authorities, because the agent and its controller trust different ones.

    :param amphora_id: name in the agent's certificate; the controller checks it instead of the address
    :param directory: where the files lie
    :param heartbeat_key: with which the amphora signs its heartbeats
    """

    amphora_id: uuid.UUID
    directory: Path
    heartbeat_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def files(self, network: Management) -> dict[str, str]:
        """Make what the config drive carries: the agent's configuration, its certificate, the CA of its clients."""
        template = string.Template((FILES / "amphora-agent.conf").read_text(encoding="utf-8"))
        values = {"amphora_id": str(self.amphora_id), "heartbeat_key": self.heartbeat_key}
        managers = ", ".join(f"{address}:{HEARTBEAT_PORT}" for address in network.controllers.values())
        return {
            CONFIG: template.substitute(values, health_managers=managers),
            SERVER: self._text("server.pem") + self._text("server.key"),
            CLIENT_CA: self._text("client_ca.pem"),
        }

    def _text(self, name: str) -> str:
        return (self.directory / name).read_text()


def make_identity(directory: Path, console: Console) -> Identity:
    """Make throw-away certificates, valid for two days.

    :param directory: an empty directory of this user only; keys are written there
    :raises HostError: openssl is not installed
    """
    identity = Identity(uuid.uuid4(), directory)
    for name in ("server", "client"):
        authority = ["-keyout", f"{name}_ca.key", "-out", f"{name}_ca.pem", "-subj", f"/CN=amphora-mkimage {name} CA"]
        # Python 3.13, the agent's too, asks an authority for its key usage (ssl.VERIFY_X509_STRICT; RFC 5280 4.2.1.3).
        _openssl(directory, [*authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign"], console)
        subject = ["-subj", f"/CN={identity.amphora_id}", "-addext", f"subjectAltName=DNS:{identity.amphora_id}"]
        leaf = ["-addext", "basicConstraints=critical,CA:FALSE", *subject]
        signer = ["-CA", f"{name}_ca.pem", "-CAkey", f"{name}_ca.key"]
        _openssl(directory, [*signer, "-keyout", f"{name}.key", "-out", f"{name}.pem", *leaf], console)
    return identity


def _openssl(directory: Path, arguments: list[str], console: Console) -> None:
    paths = [str(directory / word) if word.endswith((".key", ".pem")) else word for word in arguments]
    argv = ["openssl", "req", "-x509", *_KEY, "-days", _DAYS, *paths]
    run(argv, console, what="cannot make certificates", remedy="install the package openssl")
