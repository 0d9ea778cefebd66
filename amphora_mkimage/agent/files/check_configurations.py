"""Render a configuration for each feature with the agent's own templates, and ask HAProxy; runs in the image.

    check_configurations.py FEATURES DIRECTORY

FEATURES is features.json, DIRECTORY is for files and has nothing in it. Prints JSON: the version of HAProxy, and by the
name of each feature "" or why it is refused.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import re
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

HAPROXY = "/usr/sbin/haproxy"
#: The agent's unit gives HAProxy this file besides the configuration.
GROUP = Path("/var/lib/octavia/haproxy-default-user-group.conf")
BALANCER = "5a1c8d3e-0000-4000-8000-000000000001"

#: What the objects of every feature have.
TLS: dict[str, Any] = {
    "tls_ciphers": "TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384",
    "tls_versions": ["TLSv1.2", "TLSv1.3"],
    "alpn_protocols": ["h2", "http/1.1"],
}
MONITOR: dict[str, Any] = {
    "id": "monitor",
    "enabled": True,
    "delay": 5,
    "timeout": 5,
    "fall_threshold": 3,
    "rise_threshold": 3,
    "http_method": "GET",
    "url_path": "/",
    "expected_codes": "200,204",
}
POOL: dict[str, Any] = {
    "id": "pool",
    "protocol": "HTTP",
    "lb_algorithm": "ROUND_ROBIN",
    "enabled": True,
    "tls_enabled": False,
    "tls_certificate_id": "x",
    "ca_tls_certificate_id": "x",
    "crl_container_id": "x",
    **TLS,
}
LISTENER: dict[str, Any] = {
    "id": "listener",
    "protocol": "HTTP",
    "protocol_port": 443,
    "enabled": True,
    "connection_limit": -1,
    "insert_headers": {},
    "peer_port": 1025,
}


class Thing:
    """An object of Octavia's data model; whatever it was not given is None, as in a row without a value."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)


class StandIn(types.ModuleType):
    """A module that is imported for annotations only: the database's, whose projects no amphora has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Thing


def certificates(directory: Path) -> None:
    """Make a key, a certificate that signs itself, and its revocation list."""
    x509, hashes, serialization, ec = map(
        importlib.import_module,
        (
            "cryptography.x509",
            "cryptography.hazmat.primitives.hashes",
            "cryptography.hazmat.primitives.serialization",
            "cryptography.hazmat.primitives.asymmetric.ec",
        ),
    )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "amphora")])
    now, later = datetime.datetime(2020, 1, 1), datetime.datetime(2049, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, later)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    revoked = x509.CertificateRevocationListBuilder(name, now, later)
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem)
    files = {
        "server.pem": certificate + key.private_bytes(pem, *plain),
        "ca.pem": certificate,
        "crl.pem": revoked.sign(key, hashes.SHA256()).public_bytes(pem),
        "listener.pem": f"{directory}/{BALANCER}/server.pem\n".encode(),
    }
    (directory / BALANCER).mkdir()
    for file, content in files.items():
        (directory / BALANCER / file).write_bytes(content)


def objects(wanted: dict[str, Any]) -> tuple[Thing, Thing]:
    """Make what the controller would read from its database for one feature."""
    amphorae = [
        Thing(id=f"amphora-{n}", status="ALLOCATED", vrrp_ip=f"192.0.2.{n}", lb_network_ip=f"198.51.100.{n}")
        for n in (1, 2)
    ]
    balancer: dict[str, Any] = {"id": BALANCER, "project_id": "project", "enabled": True, "topology": "SINGLE"}
    balancer |= {"vip": Thing(ip_address="192.0.2.9"), "additional_vips": [Thing(ip_address="2001:db8::9")]}
    members = [
        Thing(id=f"member-{n}", ip_address=f"192.0.2.1{n}", protocol_port=80, weight=1, enabled=True, backup=n == 2)
        for n in (1, 2)
    ]
    pool = POOL | {"members": members}
    if "monitor" in wanted:
        pool["health_monitor"] = Thing(**MONITOR | wanted["monitor"])
    if "persistence" in wanted:
        pool["session_persistence"] = Thing(**wanted["persistence"])
    made = Thing(**pool | wanted.get("pool", {}))
    listener = LISTENER | {"pools": [made], "default_pool": made, "l7policies": []}
    listener |= wanted.get("listener", {})
    if listener["protocol"] == "TERMINATED_HTTPS":
        listener |= {**TLS, "tls_certificate_id": "x", "sni_containers": [], "hsts_max_age": 3600}
    if listener["protocol"] == "PROMETHEUS":
        listener |= {"pools": [], "default_pool": None}
    if "client_authentication" in listener:
        listener |= {"client_ca_tls_certificate_id": "ca", "client_crl_container_id": "crl"}
    for number, policy in enumerate(wanted.get("policies", ())):
        rules = [Thing(id=f"rule-{number}-{n}", enabled=True, **rule) for n, rule in enumerate(policy["rules"])]
        made_of = {"id": f"policy-{number}", "enabled": True, "redirect_http_code": 302, "l7rules": rules}
        listener["l7policies"].append(Thing(**made_of | policy))
    listener["load_balancer"] = Thing(**balancer | {"amphorae": amphorae} | wanted.get("balancer", {}))
    return amphorae[0], Thing(**listener)


def render(templater: Any, wanted: dict[str, Any], version: str, directory: Path) -> str:
    """Render one feature's configuration."""
    amphora, listener = objects(wanted)
    here = f"{directory}/{BALANCER}"
    pool = {"client_cert": f"{here}/server.pem", "ca_cert": f"{here}/ca.pem", "crl": f"{here}/crl.pem"}
    arguments: dict[str, Any] = {
        "tls_certs": {"ca": "ca.pem", "crl": "crl.pem", "pool": pool},
        "haproxy_versions": version.split("."),
    }
    known = inspect.signature(templater.build_config).parameters
    if "amp_details" in known:
        arguments["amp_details"] = wanted.get("details", {})
    return str(templater.build_config(amphora, [listener], **arguments))


def ask(text: str, path: Path) -> str:
    """Ask HAProxy, as the agent's unit does."""
    path.write_text(text, encoding="utf-8")
    argv = [HAPROXY, "-c", "-f", str(path), *(["-f", str(GROUP)] if GROUP.exists() else [])]
    peer = re.search(r"^ *peer (\S+)", text, re.MULTILINE)
    argv += ["-L", peer[1]] if peer else []
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=300)
    if done.returncode == 0:
        return ""
    alerts = [line for line in done.stderr.splitlines() if "[ALERT]" in line]
    said = (alerts or done.stderr.splitlines() or [f"status {done.returncode}"])[0]
    return re.sub(r"^.*?\] : ?", "", said).strip()[:300] or "refused"


def main(features: Path, directory: Path) -> None:
    """Check all."""
    said = subprocess.run([HAPROXY, "-v"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+\.\d+\.\d+)", said)
    version = found[1] if found else "0.0.0"
    database, models = StandIn("octavia.db"), StandIn("octavia.db.models")
    vars(database)["models"] = models
    sys.modules.update({"octavia.db": database, "octavia.db.models": models})
    # Octavia's options have the host's name as a default, and refuse one that is none, as an appliance's "(none)".
    socket.gethostname = lambda: "amphora"
    jinja_cfg: Any = importlib.import_module("octavia.common.jinja.haproxy.combined_listeners.jinja_cfg")
    jinja_cfg.CONF.set_override("base_cert_dir", str(directory), group="haproxy_amphora")
    certificates(directory)
    templater = jinja_cfg.JinjaTemplater(base_crt_dir=str(directory))
    answers = {}
    for number, (name, parts) in enumerate(json.loads(features.read_text(encoding="utf-8")).items()):
        answers[name] = ask(render(templater, parts, version, directory), directory / f"{number}.cfg")
    json.dump({"haproxy": version, "features": answers}, sys.stdout)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).with_name("packaging.zip")))
    main(*map(Path, sys.argv[1:]))
