"""The agent's surroundings on a small tree, and its scripts with programs that only write down what they are told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from amphora_mkimage import cli, request, settings
from amphora_mkimage.agent.install import COMMANDS
from amphora_mkimage.console import Console
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.request import Request
from amphora_mkimage.stages import agent, agent_package
from amphora_mkimage.stages.install import FILES

MASQUERADE = FILES / "usr/local/bin/lvs-masquerade.sh"
CERTFS = FILES / "usr/local/bin/certfs-ramfs"
PING = FILES / "var/lib/octavia/ping-wrapper.sh"
#: Profiles of rsyslog, as Ubuntu 24.04 and others write them, and what becomes of their heads.
PROFILES = {
    "profile rsyslogd /usr/sbin/rsyslogd {": "profile rsyslogd /usr/sbin/rsyslogd flags=(attach_disconnected) {",
    "/usr/sbin/rsyslogd flags=(complain) {": "/usr/sbin/rsyslogd flags=(complain,attach_disconnected) {",
    "profile rsyslogd /usr/sbin/rsyslogd flags=(attach_disconnected, complain) {": (
        "profile rsyslogd /usr/sbin/rsyslogd flags=(attach_disconnected,complain) {"
    ),
    "# /usr/sbin/rsyslogd {": "# /usr/sbin/rsyslogd {",
}


class RecordingGuest(NamespaceGuest):
    """File verbs for real; commands are only written down."""

    commands: list[list[str]]

    def command(self, arguments: list[str]) -> str:
        self.commands.append(arguments)
        return ""


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingGuest]:
    (tmp_path / "tree/usr/local/bin").mkdir(parents=True)
    made = RecordingGuest(tmp_path / "tree", Console())
    made.commands = []
    monkeypatch.setattr(made, "chown", lambda owner, group, path: None)  # an ordinary user runs this, too
    yield made
    made.close()


def wanted(*argv: str) -> Request:
    values = settings.resolve(vars(cli.build_parser().parse_args(["-i", "debian-minimal", *argv])), {})
    return request.make(values, {}, lambda text: None)


def test_it_is_left_out_on_demand() -> None:
    assert agent.applies(wanted())
    assert not agent.applies(wanted("--no-agent"))


def test_programs_and_units(guest: RecordingGuest) -> None:
    agent.run(guest, wanted())
    for name in COMMANDS:
        assert guest.readlink(f"/usr/local/bin/{name}") == f"/opt/amphora-agent-venv/bin/{name}"
    assert guest.readlink("/usr/local/bin/udp-masquerade.sh") == "lvs-masquerade.sh"
    for name in ("lvs-masquerade.sh", "certfs-ramfs"):
        assert (guest.root / "usr/local/bin" / name).stat().st_mode & 0o777 == 0o755
    (enable,) = guest.commands
    assert enable[:2] == ["systemctl", "enable"]
    assert {path.name for path in (guest.root / "usr/lib/systemd/system").iterdir()} == set(enable[2:])
    assert not guest.exists("/etc/apparmor.d")


def test_the_agent_of_a_package_has_our_names_and_not_its_own(guest: RecordingGuest) -> None:
    """Beside files as Debian's package has them."""
    for path in ("/usr/lib/systemd/system", "/etc/sysctl.d", "/etc/logrotate.d", "/usr/bin", "/usr/local/bin"):
        guest.mkdir_p(path)
    foreign = ("octavia-agent.service", "octavia-agent-netns.service", "pollinate.service")
    for unit in (*foreign, "amphora-agent.service"):
        guest.write(f"/usr/lib/systemd/system/{unit}", b"theirs")
    for name in ("sysctl.d/octavia-agent-sysctl.conf", "logrotate.d/octavia-agent", "octavia/octavia.conf"):
        guest.mkdir_p(f"/etc/{name}".rpartition("/")[0])
        guest.write(f"/etc/{name}", b"theirs")
    guest.write("/usr/bin/octavia-agent-lvs-masquerade", b"theirs")
    request = wanted("-p")
    assert agent_package.applies(request) and not agent_package.applies(wanted())
    agent.run(guest, request)
    agent_package.run(guest, request)
    for name in COMMANDS:
        assert guest.readlink(f"/usr/local/bin/{name}") == f"/usr/bin/{name}"
    assert guest.readlink("/usr/local/bin/octavia-agent-lvs-masquerade") == "lvs-masquerade.sh"
    # What a package owns is not written over.
    assert guest.read_file("/usr/lib/systemd/system/amphora-agent.service") == b"theirs"
    assert b"--config-file /etc/octavia/amphora-agent.conf" in guest.read_file(
        "/etc/systemd/system/amphora-agent.service"
    )
    assert not guest.exists("/etc/sysctl.d/octavia-agent-sysctl.conf")
    assert guest.ls("/etc/logrotate.d") == ["amphora-agent"]
    assert guest.ls("/etc/octavia") == ["certs"]
    enable, disable, mask = guest.commands
    assert (disable, mask) == (["systemctl", "disable", *foreign], ["systemctl", "mask", *foreign])
    assert not set(enable).intersection(foreign)


@pytest.mark.parametrize("head", PROFILES)
def test_apparmor(guest: RecordingGuest, head: str) -> None:
    rest = "\n  /usr/sbin/rsyslogd mr,\n  @{PROC}/{1,2}/x r,\n}\n"
    guest.mkdir_p("/etc/apparmor.d")
    guest.write("/etc/apparmor.d/usr.sbin.rsyslogd", (head + rest).encode())
    for _ in range(2):
        agent.run(guest, wanted())
        assert guest.read_file("/etc/apparmor.d/usr.sbin.rsyslogd").decode() == PROFILES[head] + rest
    assert guest.is_file("/etc/apparmor.d/rsyslog.d/octavia")


def run(script: Path, place: Path, *arguments: str, programs: tuple[str, ...]) -> tuple[int, str]:
    """Run a script with programs that write down their arguments and input; gives its status and what they wrote."""
    place.mkdir(exist_ok=True)
    said = place / "said"
    said.write_text("")
    for name in programs:
        (place / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {said}\n[ "$1" != -f ] || cat >> {said}\n')
        (place / name).chmod(0o755)
    for name in ("sh", "cat", "awk", "mkdir"):
        if not (place / name).exists():
            (place / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(["/bin/sh", script, *arguments], env={"PATH": str(place)}, capture_output=True, check=False)
    return done.returncode, said.read_text()


@pytest.mark.parametrize(("family", "name"), [("ipv4", "ip octavia-ipv4"), ("ipv6", "ip6 octavia-ipv6")])
def test_masquerade_by_nftables(family: str, name: str, tmp_path: Path) -> None:
    status, said = run(MASQUERADE, tmp_path, "add", family, "eth1", programs=("nft",))
    assert status == 0
    assert f'add rule {name} masquerade-eth1 oifname "eth1" meta l4proto {{ udp, sctp }} masquerade\n' in said
    assert f'add rule {name} untracked-in-eth1 iifname "eth1" meta l4proto tcp notrack\n' in said
    assert f'add rule {name} untracked-out-eth1 oifname "eth1" meta l4proto tcp notrack\n' in said
    assert "delete" not in said
    # Each rule comes after its chain was emptied, so that it can be added twice.
    assert said.index(f"flush chain {name} masquerade-eth1\n") < said.index(f"add rule {name} masquerade-eth1")
    status, said = run(MASQUERADE, tmp_path, "delete", family, "eth1", programs=("nft",))
    assert status == 0
    assert said.count("delete chain") == 3
    assert "add rule" not in said


def test_masquerade_of_an_sriov_port_tracks_tcp(tmp_path: Path) -> None:
    for programs in (("nft",), ("iptables",)):
        status, said = run(MASQUERADE, tmp_path / programs[0], "add", "ipv4", "eth1", "sriov", programs=programs)
        assert status == 0
        assert "notrack" not in said
        assert "udp" in said


def test_masquerade_by_iptables(tmp_path: Path) -> None:
    status, said = run(MASQUERADE, tmp_path, "delete", "ipv6", "eth1", programs=("ip6tables",))
    assert status == 0
    assert [line.split()[5] for line in said.splitlines()] == ["POSTROUTING", "POSTROUTING", "PREROUTING", "OUTPUT"]
    assert all(" -D " in line for line in said.splitlines())


@pytest.mark.parametrize(
    "arguments", [(), ("add",), ("add", "ipv5", "eth1"), ("put", "ipv4", "eth1"), ("add", "ipv4", "")]
)
def test_masquerade_refuses(arguments: tuple[str, ...], tmp_path: Path) -> None:
    status, said = run(MASQUERADE, tmp_path, *arguments, programs=("nft", "iptables"))
    assert (status, said) == (1, "")


@pytest.mark.parametrize(
    ("line", "directory"),
    [
        ("base_cert_dir = {}/a b", "a b"),
        ("  base_cert_dir={}/c\t", "c"),
        ("# base_cert_dir = /x\nbase_cert_dir = {}/d\nbase_cert_dir_of = /y", "d"),
    ],
)
def test_the_directory_of_keys_is_the_agents(line: str, directory: str, tmp_path: Path) -> None:
    config, script = tmp_path / "agent.conf", tmp_path / "script"
    config.write_text(f"[haproxy_amphora]\n{line.format(tmp_path)}\n")
    script.write_text(CERTFS.read_text().replace("/etc/octavia/amphora-agent.conf", str(config)))
    programs = ("modprobe", "cryptsetup", "mke2fs", "mount")
    status, said = run(script, tmp_path / "bin", "start", programs=programs)
    assert status == 0
    assert [row.split()[0] for row in said.splitlines()] == list(programs)
    assert said.splitlines()[-1].endswith(f"/dev/mapper/certfs-ramfs {tmp_path}/{directory}")
    assert (tmp_path / directory).is_dir()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_ping_needs_nothing_of_haproxys_environment(address: str, tmp_path: Path) -> None:
    """HAProxy runs it with an empty PATH; tests/build has the real one."""
    script, ping = tmp_path / "script", tmp_path / "ping"
    script.write_text(PING.read_text().replace("/usr/sbin:", f"{tmp_path}:/usr/sbin:"))
    for status in (0, 1):
        ping.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/said\nexit {status}\n')
        ping.chmod(0o755)
        done = subprocess.run(["/bin/sh", script], env={"PATH": "", "HAPROXY_SERVER_ADDR": address}, check=False)
        assert done.returncode == status
        assert (tmp_path / "said").read_text() == f"-q -n -w 1 -c 1 {address}\n"
