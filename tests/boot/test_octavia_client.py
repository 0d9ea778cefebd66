"""A built image, driven by the client, templates and heartbeat check of the released octavia."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage.agent import install, lock
from amphora_mkimage.boot import agent, command, vip
from amphora_mkimage.boot.api import Client
from amphora_mkimage.boot.session import UNITS_SECONDS, Session
from amphora_mkimage.console import Console
from amphora_mkimage.errors import ExitStatus

REPOSITORY = Path(__file__).parents[2]
#: As Octavia's own sample configurations have it.
NETWORK = vip.Network(
    name="vip",
    subnet="10.0.0.0/24",
    gateway="10.0.0.1",
    vip="10.0.0.2",
    vrrp_ip="10.0.0.41",
    members=(("10.0.0.98", 82), ("10.0.0.99", 82)),
    forwards=(("tcp", 80), ("tcp", 443), ("udp", 80)),
)
#: A member network.
SECOND = vip.Network(
    name="members",
    subnet="10.1.0.0/24",
    gateway="10.1.0.1",
    vrrp_ip="10.1.0.41",
    mac="52:54:00:12:34:58",
    members=(),
    forwards=(),
)
CALLS = {
    "get_api_version", "get_info", "get_details", "plug_vip", "get_interface", "plug_network", "upload_cert_pem",
    "get_cert_md5sum", "delete_cert_pem", "upload_config", "start_listener", "reload_listener", "get_all_listeners",
    "upload_udp_config", "start_listener, UDP", "upload_vrrp_config", "start_vrrp", "reload_vrrp", "stop_vrrp",
    "set_interface_rules", "update_agent_config", "update_cert_for_rotation", "delete_listener, UDP",
    "delete_listener",
}  # fmt: skip


class Drive:
    """What the boot command does with the agent here, in place of its own controller."""

    def __init__(self, python: Path, place: Path) -> None:
        self.python, self.place = python, place
        self.result: dict[str, Any] = {}

    def __call__(self, session: Session, client: Client) -> None:
        machine, identity = session.machine, client.identity
        wire = self.place / "vip.pcap"
        ports = {"tcp": machine.plug(NETWORK)}
        ports["udp"] = machine.forwarded_ports(NETWORK.vip, "UDP")
        machine.monitor.execute(
            "object-add", **{"qom-type": "filter-dump", "id": "vip-wire", "netdev": NETWORK.name, "file": str(wire)}
        )
        SECOND.plug(machine.monitor, "")
        files = identity.files(session.network)
        document = {
            "id": str(identity.amphora_id),
            "port": client.port,
            "directory": str(identity.directory),
            "key": identity.heartbeat_key,
            "config": files[agent.CONFIG],
            "certificate": files[agent.SERVER],
            "token": NETWORK.token,
            "network": {**dataclasses.asdict(NETWORK), "net_info": NETWORK.net_info()},
            "second": dataclasses.asdict(SECOND),
            "ports": ports,
            "management": str(machine.drawing.wire),
            "manager": next(iter(session.network.controllers.values())),
            "wire": str(wire),
        }
        path = self.place / "place.json"
        path.write_text(json.dumps(document))
        argv = [self.python, Path(__file__).with_name("octavia_client.py"), path]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = session.in_background(
            lambda: subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
        )
        self.result = json.loads(done.stdout)
        session.follow(lambda: session.outcome.report.deleted, UNITS_SECONDS)


def test_octavias_client(
    built_image: Path, octavia_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = parser.parse_args(["--json", "--timeout", "2400", str(built_image)])
    drive = Drive(octavia_python, tmp_path)
    status = command.run(arguments, Console(sys.stderr), drive)
    result = json.loads(capsys.readouterr().out)
    assert result["problems"] == [], json.dumps(result, indent=2)
    assert status == ExitStatus.OK
    assert result["agent"]["failed_units"] == []
    assert drive.result["seconds"].keys() >= CALLS
    assert drive.result["info"]["haproxy_version"]
    assert drive.result["details"]["cpu_count"] == 2


def test_what_is_left_out_is_what_no_command_imports(octavia_python: Path) -> None:
    script = REPOSITORY / "amphora_mkimage/agent/files/import_commands.py"
    argv = [octavia_python, Path(__file__).with_name("imported.py"), script, *install.COMMANDS]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    imported = {re.sub(r"[-_.]+", "-", name).lower() for name in done.stdout.split()}
    locked = {package.name for package in lock.read()}
    # What installs and builds the others; and a module that Python 3.13 has no longer.
    assert imported - {"setuptools", "legacy-cgi"} == locked - lock.UNUSED - {"pip", "setuptools", "legacy-cgi"}
