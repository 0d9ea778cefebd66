"""The router between guest and controller: real namespaces, a real DHCP server, and a guest that is a namespace too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from public import PYTHON, public_root

from amphora_mkimage import process
from amphora_mkimage.boot import router
from amphora_mkimage.boot.management import NETWORKS, Kind
from amphora_mkimage.errors import ExitStatus, HostError, MkimageError

PATH = process.environment()["PATH"]
pytestmark = pytest.mark.skipif(
    not (shutil.which("ip", path=PATH) and shutil.which("dnsmasq", path=PATH) and os.access("/dev/net/tun", os.W_OK)),
    reason="needs iproute2, dnsmasq-base and /dev/net/tun",
)
GUEST = [sys.executable, str(Path(__file__).with_name("namespace_guest.py"))]
ROUTED = [kind for kind in Kind if kind is not Kind.USER]
#: Options of DHCP (RFC 2132).
ROUTER, MTU = "3", "26"


def seen(kind: Kind, route: str = "route", argv: Sequence[str] = GUEST, env: Mapping[str, str] | None = None) -> Any:
    done = subprocess.run([*argv, kind, route], capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def children_of(pid: int) -> set[int]:
    """All descendants of a process."""
    listing = subprocess.check_output(["ps", "-e", "-o", "pid=,ppid="], text=True)
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in pairs if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that run; what has ended counts even before somebody asked for its status."""
    argv = ["ps", "-o", "pid=,state=", "-p", ",".join(map(str, pids))]
    rows = [
        line.split()
        for line in subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    ]
    return {int(pid) for pid, state in rows if state != "Z"}


@pytest.mark.parametrize("kind", ROUTED)
def test_a_guest_is_reached_and_heard_across_the_router(kind: Kind) -> None:
    found = seen(kind)
    network = NETWORKS[kind]
    assert found["answers"] == {str(version): "the guest" for version in network.addresses}
    assert found["silent"] == []
    if "dhcp" in found:
        assert found["dhcp"]["address"] == network.addresses[4]
        assert ROUTER in found["dhcp"]["options"]
        # Else a guest that does not read the MTU from the config drive would have the right one all the same.
        assert MTU not in found["dhcp"]["options"]
    assert found.get("mtu6", 1500) == 1500
    if kind is Kind.STATEFUL:
        assert (found["dhcpv6"], found["autoconfigured"]) == (network.addresses[6], "")
    if kind is Kind.STATIC:
        assert "proto ra" not in found["routes6"]


def test_a_guest_without_a_default_route_is_neither_reached_nor_heard() -> None:
    found = seen(Kind.STATIC, "no-route")
    assert found["answers"] == {"4": "", "6": ""}
    assert found["silent"] == list(NETWORKS[Kind.STATIC].controllers.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user")
def test_an_ordinary_user_has_a_router_too() -> None:
    program = shutil.copy(GUEST[-1], public_root())
    become = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all")
    env = {**os.environ, "PYTHONPATH": str(public_root())}
    assert seen(Kind.DUAL, argv=[*become, PYTHON, str(program)], env=env)["silent"] == []


def test_nothing_outlives_the_program() -> None:
    script = (
        "import sys, time; from amphora_mkimage.boot import router; from amphora_mkimage.boot.management import *\n"
        "def work(link): print('up', flush=True); time.sleep(600)\n"
        "router.behind(NETWORKS[Kind.DUAL], [80], work)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == b"up\n"
            started = children_of(program.pid)
            # The router, the process that waits for it, the controller's side, and the DHCP server.
            assert len(started) == 4
        finally:
            program.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while alive(started) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(started) == set()


def test_a_server_that_dies_is_an_error() -> None:
    def work(_: router.Link) -> None:
        argv = ["ps", "-o", "pid=", "-C", "dnsmasq"]
        servers = children_of(os.getpid()) & set(map(int, subprocess.check_output(argv, text=True).split()))
        os.kill(*servers, signal.SIGKILL)
        while alive(servers):
            time.sleep(0.01)

    with pytest.raises(MkimageError, match="dnsmasq ended"):
        router.behind(NETWORKS[Kind.DHCP], [80], work)


def test_a_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_SERVER", ("--no-such-option",))
    with pytest.raises(MkimageError, match=r"dnsmasq did not start: .*option"):
        router.behind(NETWORKS[Kind.DHCP], [80], lambda link: None)


def test_what_fails_meanwhile_is_raised() -> None:
    def work(_: router.Link) -> None:
        raise MkimageError("what")

    with pytest.raises(MkimageError, match="what"):
        router.behind(NETWORKS[Kind.STATIC], [80], work)


@pytest.mark.parametrize(
    ("lacking", "kind", "text"),
    [
        ("ip", Kind.STATIC, "--network static: ip is not installed"),
        ("dnsmasq", Kind.DHCP, "--network dhcp: dnsmasq is not installed"),
        ("tun", Kind.STATIC, "--network static: cannot open .*tun: No such file or directory"),
    ],
)
def test_what_the_host_lacks_is_named(
    lacking: str, kind: Kind, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking == "tun":
        monkeypatch.setattr(router, "_TUN", tmp_path / "tun")
    else:
        found = shutil.which
        monkeypatch.setattr("shutil.which", lambda name, **more: None if name == lacking else found(name, **more))
    with pytest.raises(HostError, match=text) as caught:
        router.require(NETWORKS[kind])
    assert caught.value.status == ExitStatus.HOST
    assert caught.value.remedy
    if lacking == "dnsmasq":
        router.require(NETWORKS[Kind.STATIC])
