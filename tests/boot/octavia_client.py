"""Drive a booted amphora with Octavia's own client, configurations and heartbeat check.

Run by test_octavia_client.py with an interpreter that has the released octavia; its only argument is a JSON document
that says where the amphora is. Each call of the client that a single amphora can answer is made, in an order that a
controller would use, and its effect is looked at from the outside. Prints a JSON object of what was found.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from octavia.amphorae.backends.health_daemon import status_message
from octavia.amphorae.drivers.haproxy import exceptions
from octavia.amphorae.drivers.haproxy.rest_api_driver import AmphoraAPIClient1_0, AmphoraAPIClientBase
from octavia.amphorae.drivers.keepalived.jinja.jinja_cfg import KeepalivedJinjaTemplater
from octavia.common import config, constants
from octavia.common.jinja.haproxy.combined_listeners.jinja_cfg import JinjaTemplater
from octavia.common.jinja.lvs.jinja_cfg import LvsJinjaTemplater
from octavia.common.tls_utils import cert_parser
from octavia.tests.common import sample_certs
from octavia.tests.unit.common.sample_configs import sample_configs_combined as samples
from oslo_config import cfg

from amphora_mkimage.boot.heartbeat import Capture

LB = "sample_loadbalancer_id_1"
HTTPS, HTTP, UDP = "sample_listener_id_1", "sample_listener_id_2", str(uuid.uuid4())
SECONDS = 240
#: What is let in.
RULES = (("TCP", 80), ("TCP", 443), ("UDP", 80))
#: The other amphora of a pair. A member's address, because somebody has to answer ARP before packets are sent there.
PEER = "10.0.0.98"
VRRP, UDP_PROTOCOL = 112, 17


class Amphora:
    """The amphora, its client, and what is seen of it.

    :param place: "id", "port" of the agent, "directory" of the certificates, "key" of heartbeats, "token" of the
        members, "network" and "second" (addresses), "ports" by protocol and port of the VIP, "management" and "wire"
        (captures)
    """

    def __init__(self, place: dict[str, Any]) -> None:
        self.place, self.network = place, place["network"]
        directory = Path(place["directory"])
        merged = directory / "client-and-key.pem"
        merged.write_text("".join((directory / name).read_text() for name in ("client.pem", "client.key")))
        config.init([])
        for name, value in {
            "bind_port": place["port"],
            "client_cert": str(merged),
            "server_ca": str(directory / "server_ca.pem"),
            "connection_max_retries": 5,
            "connection_retry_interval": 5,
            "rest_request_read_timeout": SECONDS,
            "rest_request_conn_timeout": 30,
        }.items():
            cfg.CONF.set_override(name, value, group="haproxy_amphora")
        self.amp = SimpleNamespace(id=place["id"], lb_network_ip="127.0.0.1", api_version=None)
        self.client = AmphoraAPIClient1_0()
        manager = place["manager"]
        self.heartbeats = Capture(Path(place["management"]), manager)
        self.wire = Capture(Path(place["wire"]), manager)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        sys.stderr.write(f"octavia's client: {name}\n")
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)

    def port(self, protocol: str, port: int) -> int:
        return int(self.place["ports"][protocol][str(port)])

    def get(self, port: int, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
        """Ask through the VIP."""
        if context is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port("tcp", port), timeout=60)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port("tcp", port), timeout=60, context=context)
        connection.request("GET", "/")
        return connection.getresponse()

    def packets(self, protocol: int) -> Iterator[tuple[str, str, bytes]]:
        """Source, destination and payload of new IPv4 packets on the VIP's network."""
        for frame in self.wire.frames():
            packet = frame[14:]
            if frame[12:14] == b"\x08\x00" and packet[9] == protocol:
                source, destination = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
                yield source, destination, packet[(packet[0] & 0xF) * 4 :]

    def heartbeat(self, key: str, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a heartbeat that is genuine and good."""

        def look() -> dict[str, Any] | None:
            for datagram in self.heartbeats.datagrams():
                with contextlib.suppress(Exception):  # signed with a key from before
                    beat = status_message.unwrap_envelope(datagram, key)
                    if good(beat):
                        return dict(beat)
            return None

        return wait(look, "a good heartbeat")


def wait(look: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come")


def introduce(amphora: Amphora, found: dict[str, Any]) -> None:
    client, amp = amphora.client, amphora.amp
    with amphora.step("get_api_version"):
        amp.api_version = AmphoraAPIClientBase().get_api_version(amp)["api_version"]
    assert amp.api_version == "1.0"
    with amphora.step("get_info"):
        found["info"] = client.get_info(amp)
    with amphora.step("get_details"):
        found["details"] = client.get_details(amp)


def plug(amphora: Amphora) -> None:
    client, amp, network, second = amphora.client, amphora.amp, amphora.network, amphora.place["second"]
    # As if the port were of a network card's virtual function: then the agent drops what no rule lets in. The VIP in
    # test_boot.py is an ordinary one.
    with amphora.step("plug_vip"):
        client.plug_vip(amp, network["vip"], {**network["net_info"], "is_sriov": True})
    with amphora.step("get_interface"):
        assert client.get_interface(amp, network["vrrp_ip"])["interface"] == "eth1"
    with amphora.step("set_interface_rules"):
        rules = [{"protocol": protocol, "cidr": None, "port": port} for protocol, port in RULES]
        rules.append({"protocol": constants.VRRP, "cidr": f"{PEER}/32", "port": 112})
        client.set_interface_rules(amp, network["vrrp_ip"], rules)
    with amphora.step("plug_network"):
        fixed = {"ip_address": second["vrrp_ip"], "subnet_cidr": second["subnet"], "gateway": None, "host_routes": []}
        port = {"mac_address": second["mac"], "fixed_ips": [fixed], "mtu": 1450, "is_sriov": False}
        client.plug_network(amp, port)
    assert client.get_interface(amp, second["vrrp_ip"])["interface"] == "eth2"


def upload_certificates(amphora: Amphora) -> None:
    client, amp = amphora.client, amphora.amp
    listener = samples.sample_listener_tuple(proto="TERMINATED_HTTPS", tls=True)
    pem = cert_parser.build_pem(listener.default_tls_container)
    with amphora.step("upload_cert_pem"):
        client.upload_cert_pem(amp, LB, "cont_id_1.pem", pem)
    with amphora.step("get_cert_md5sum"):
        assert client.get_cert_md5sum(amp, LB, "cont_id_1.pem") == hashlib.md5(pem).hexdigest()
    client.upload_cert_pem(amp, LB, f"{HTTPS}.pem", f"/var/lib/octavia/certs/{LB}/cont_id_1.pem\n".encode())
    client.upload_cert_pem(amp, LB, "other.pem", pem)
    with amphora.step("delete_cert_pem"):
        client.delete_cert_pem(amp, LB, "other.pem")
    try:
        client.get_cert_md5sum(amp, LB, "other.pem", ignore=(404,))
    except exceptions.NotFound:
        pass
    else:
        assert client.get_cert_md5sum(amp, LB, "other.pem", ignore=(404,)) is None


def serve(amphora: Amphora, found: dict[str, Any]) -> None:
    client, amp = amphora.client, amphora.amp
    upload_certificates(amphora)
    listeners = [
        samples.sample_listener_tuple(id=HTTPS, proto="TERMINATED_HTTPS", tls=True, monitor=False),
        samples.sample_listener_tuple(id=HTTP, proto="HTTP", monitor=False, persistence=False),
    ]
    host = samples.sample_amphora_tuple(id=amp.id)
    versions = found["info"]["haproxy_version"].split(".")
    text = JinjaTemplater(base_amp_path="/var/lib/octavia", base_crt_dir="/var/lib/octavia/certs").build_config(
        host, listeners, tls_certs=None, haproxy_versions=versions, amp_details=found["details"]
    )
    with amphora.step("upload_config"):
        client.upload_config(amp, LB, text)
    with amphora.step("start_listener"):
        client.start_listener(amp, LB)
    with amphora.step("HTTP through the VIP"):
        answer = amphora.get(80)
        assert (answer.status, answer.read().decode()) == (200, amphora.place["token"])
    with amphora.step("HTTPS through the VIP"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the samples have expired
        answer = amphora.get(443, context)
        assert (answer.status, answer.read().decode()) == (200, amphora.place["token"])
        shown = ssl.get_server_certificate(("127.0.0.1", amphora.port("tcp", 443)), timeout=60)
        first = ssl.PEM_cert_to_DER_cert(sample_certs.X509_CERT.decode())
        assert ssl.PEM_cert_to_DER_cert(shown) == first
    with amphora.step("reload_listener"):
        client.reload_listener(amp, LB)
    assert amphora.get(80).status == 200
    with amphora.step("get_all_listeners"):
        states = {listener["uuid"]: listener["status"] for listener in client.get_all_listeners(amp)}
    assert states == {HTTP: "ACTIVE", HTTPS: "ACTIVE"}


def forward_datagrams(amphora: Amphora) -> None:
    client, amp = amphora.client, amphora.amp
    listener = samples.sample_listener_tuple(id=UDP, proto="UDP", monitor=False, persistence=False)
    text = LvsJinjaTemplater(base_amp_path="/var/lib/octavia").build_config(listener)
    for name in ("sample_pool_id_1", "sample_member_id_1", "sample_member_id_2"):
        # The agent finds them in the configuration by their form (backends/utils/keepalivedlvs_query.py).
        text = text.replace(name, str(uuid.uuid4()))
    with amphora.step("upload_udp_config"):
        client.upload_udp_config(amp, UDP, text)
    with amphora.step("start_listener, UDP"):
        client.start_listener(amp, UDP)
    members = {"10.0.0.98", "10.0.0.99"}

    def look() -> tuple[str, str] | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"a datagram", ("127.0.0.1", amphora.port("udp", 80)))
        time.sleep(1)
        for source, destination, datagram in amphora.packets(UDP_PROTOCOL):
            if destination in members and datagram[8:] == b"a datagram":
                assert int.from_bytes(datagram[2:4], "big") == 82
                return source, destination
        return None

    with amphora.step("UDP through the VIP"):
        source, _ = wait(look, "a datagram at a member")
    # Masqueraded, or the answer would pass the amphora by.
    assert source in (amphora.network["vip"], amphora.network["vrrp_ip"])


def be_healthy(amphora: Amphora) -> None:
    def good(beat: dict[str, Any]) -> bool:
        states = {name: listener["status"] for name, listener in beat["listeners"].items()}
        return states == {HTTP: "OPEN", HTTPS: "OPEN", UDP: "OPEN"}

    with amphora.step("heartbeat"):
        beat = amphora.heartbeat(amphora.place["key"], good)
    assert beat["id"] == amphora.amp.id
    assert set(beat["pools"]) > {f"sample_pool_id_1:{HTTP}", f"sample_pool_id_1:{HTTPS}"}


def elect(amphora: Amphora) -> None:
    """VRRP: keepalived of one amphora, whose peer never answers, becomes master and says so to it."""
    client, amp, network = amphora.client, amphora.amp, amphora.network
    own = SimpleNamespace(
        status="ALLOCATED", vrrp_ip=network["vrrp_ip"], vrrp_interface="eth1", vrrp_id=1, vrrp_priority=100
    )
    peer = SimpleNamespace(status="ALLOCATED", vrrp_ip=PEER)
    balancer = SimpleNamespace(
        vip=samples.sample_vip_tuple(), vrrp_group=samples.sample_vrrp_group_tuple(), amphorae=[own, peer]
    )
    subnet = {"cidr": network["subnet"], "gateway_ip": network["gateway"], "host_routes": []}
    text = KeepalivedJinjaTemplater().build_keepalived_config(
        balancer, own, {"vip_subnet": subnet, "additional_vip_data": []}
    )
    with amphora.step("upload_vrrp_config"):
        client.upload_vrrp_config(amp, text)
    with amphora.step("start_vrrp"):
        client.start_vrrp(amp)

    def advertised() -> bool:
        return any(
            (source, destination) == (network["vrrp_ip"], PEER) for source, destination, _ in amphora.packets(VRRP)
        )

    with amphora.step("VRRP advertisement"):
        wait(advertised, "an advertisement to the peer")
    assert amphora.get(80).status == 200
    with amphora.step("reload_vrrp"):
        client.reload_vrrp(amp)
    wait(advertised, "an advertisement after the reload")
    with amphora.step("stop_vrrp"):
        client.stop_vrrp(amp)


def rotate(amphora: Amphora) -> None:
    """A controller's maintenance: another heartbeat key, a new certificate of the agent."""
    client, amp, place = amphora.client, amphora.amp, amphora.place
    with amphora.step("update_agent_config"):
        client.update_agent_config(amp, place["config"].replace(place["key"], "another key"))
    with amphora.step("heartbeat with another key"):
        amphora.heartbeat("another key", lambda beat: True)
    with amphora.step("update_cert_for_rotation"):
        client.update_cert_for_rotation(amp, place["certificate"])
    assert client.get_info(amp)["api_version"] == "1.0"


def delete(amphora: Amphora) -> None:
    client, amp = amphora.client, amphora.amp
    with amphora.step("delete_listener, UDP"):
        client.delete_listener(amp, UDP)
    with amphora.step("delete_listener"):
        client.delete_listener(amp, LB)
    assert client.get_all_listeners(amp) == []


def main() -> None:
    amphora = Amphora(json.loads(Path(sys.argv[1]).read_text()))
    found: dict[str, Any] = collections.OrderedDict()
    introduce(amphora, found)
    plug(amphora)
    serve(amphora, found)
    forward_datagrams(amphora)
    be_healthy(amphora)
    rotate(amphora)
    elect(amphora)  # it takes the VIP with it when it stops
    delete(amphora)
    sys.stdout.write(json.dumps({**found, "seconds": amphora.seconds}))


main()
