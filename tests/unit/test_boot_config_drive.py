"""The config drive, read back with xorriso; the certificates, judged by openssl."""

from __future__ import annotations

import email
import io
import json
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from amphora_mkimage.boot import agent, config_drive
from amphora_mkimage.boot.management import MAC, NETWORKS, Kind
from amphora_mkimage.console import Console

pytestmark = pytest.mark.skipif(
    not (shutil.which("xorriso") and shutil.which("openssl")), reason="needs xorriso and openssl"
)
ID = uuid.UUID("8c3a6a0c-1111-4222-8333-aaaaaaaaaaaa")
FILES = {"/etc/haproxy/a.cfg": "global\n", "/etc/octavia/certs/server.pem": "PEM ü\n"}


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


@pytest.fixture
def drive(tmp_path: Path, console: Console) -> Path:
    path = tmp_path / "config.iso"
    config_drive.write(path, ID, FILES, NETWORKS[Kind.USER], console)
    return path


@pytest.fixture
def tree(drive: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    argv = ["xorriso", "-osirrox", "on", "-indev", str(drive), "-extract", "/", str(out)]
    subprocess.run(argv, check=True, capture_output=True)
    return out / "openstack"


def test_label_is_the_one_cloud_init_looks_for(drive: Path) -> None:
    # ECMA-119 8.4.7: volume identifier of the primary volume descriptor
    descriptor = drive.read_bytes()[16 * 2048 : 17 * 2048]
    assert descriptor[1:6] == b"CD001"
    assert descriptor[40:72].rstrip() == b"config-2"


def test_meta_data_refers_to_the_contents(tree: Path) -> None:
    meta = json.loads((tree / "latest" / "meta_data.json").read_text())
    assert meta["uuid"] == str(ID)
    read = {entry["path"]: (tree / entry["content_path"].lstrip("/")).read_text() for entry in meta["files"]}
    assert read == FILES


def test_network_data_is_dhcp_for_ipv4_only_on_the_only_interface(tree: Path) -> None:
    network = json.loads((tree / "latest" / "network_data.json").read_text())
    assert [item["type"] for item in network["networks"]] == ["ipv4_dhcp"]
    assert [link["ethernet_mac_address"] for link in network["links"]] == [MAC]
    assert network["networks"][0]["link"] == network["links"][0]["id"]


def test_user_data_is_the_reporter_as_a_boothook(tree: Path) -> None:
    message = email.message_from_string((tree / "latest" / "user_data").read_text())
    parts = {
        part.get_content_type(): part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()
    }
    assert list(parts) == ["text/cloud-boothook", "text/cloud-config"]
    # cloud-init strips the first line and executes the rest, so the interpreter has to stand in the second.
    first, second, rest = parts["text/cloud-boothook"].decode().split("\n", 2)
    assert (first, second) == ("#cloud-boothook", "#!/usr/bin/env python3")
    compile(rest, "reporter", "exec")
    assert parts["text/cloud-config"].decode().startswith("#cloud-config\n")


def test_host_and_reporter_agree() -> None:
    reporter = (config_drive.FILES / "reporter.py").read_text()
    assert f'HAPROXY_CONFIG = "{config_drive.HAPROXY_CONFIG}"' in reporter
    mark = reporter.partition('RUNCMD_MARK = Path("')[2].partition('"')[0]
    assert mark and f"[touch, {mark}]" in config_drive.user_data().replace("=\n", "")


def test_the_agent_gets_what_octavia_sends(tmp_path: Path, console: Console) -> None:
    files = agent.make_identity(tmp_path, console).files(NETWORKS[Kind.DUAL])
    assert set(files) == {agent.CONFIG, agent.SERVER, agent.CLIENT_CA}
    for path in (agent.SERVER, agent.CLIENT_CA):
        assert f"= {path}\n" in files[agent.CONFIG]
    assert "$" not in files[agent.CONFIG]
    # The agent cuts the port off at the last colon (health_daemon/health_sender.py); not each release takes brackets.
    assert "controller_ip_port_list = 198.51.100.10:5555, 2001:db8:b::10:5555\n" in files[agent.CONFIG]
    assert files[agent.SERVER].count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE KEY" in files[agent.SERVER]
    assert "PRIVATE KEY" not in files[agent.CLIENT_CA]


@pytest.mark.parametrize(("leaf", "authority", "ok"), [("server", "server", True), ("client", "server", False)])
def test_each_certificate_is_signed_by_its_own_authority(
    tmp_path: Path, console: Console, leaf: str, authority: str, ok: bool
) -> None:
    agent.make_identity(tmp_path, console)
    argv = ["openssl", "verify", "-CAfile", f"{authority}_ca.pem", f"{leaf}.pem"]
    assert (subprocess.run(argv, check=False, cwd=tmp_path, capture_output=True).returncode == 0) is ok


def test_no_key_is_readable_by_others(tmp_path: Path, console: Console) -> None:
    agent.make_identity(tmp_path, console)
    keys = list(tmp_path.glob("*.key"))
    assert len(keys) == 4
    assert [key for key in keys if key.stat().st_mode & 0o077] == []
