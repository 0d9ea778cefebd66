"""The agent in a real image: what is in it, what a second build costs, and an agent that does not start."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import http.client
import io
import json
import re
import socket
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftover import marked, wait_until

from amphora_mkimage.agent import install
from amphora_mkimage.boot import agent
from amphora_mkimage.boot.management import NETWORKS, Kind
from amphora_mkimage.console import Console
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import GUEST_ENVIRONMENT, NamespaceGuest

VENV = install.VENV.strip("/")
AGENT = install.choose("3.13", "amd64")


@pytest.fixture(scope="module")
def members(built) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(built.tar) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def test_the_manifest_has_every_package_of_it(built) -> None:
    found = json.loads(built.manifest.read_text())["agent"]
    assert (found["octavia"], found["python"]) == (AGENT.version, "3.13")
    assert [package["sha256"] for package in found["packages"]] == [package.sha256 for package in AGENT.kept]


def test_what_the_manifest_says_is_installed(members, built) -> None:
    pattern = re.compile(rf"{VENV}/lib/python3\.13/site-packages/([^/]+)-([^-/]+)\.dist-info")
    found = {match.groups() for match in map(pattern.fullmatch, members) if match}
    names = {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found}
    assert names == {(package.name, package.version) for package in AGENT.kept}


def test_its_commands_and_units(members) -> None:
    for name in install.COMMANDS:
        assert members[f"usr/local/bin/{name}"].linkname == f"{install.VENV}/bin/{name}"
        assert members[f"{VENV}/bin/{name}"].mode & 0o111
    wants = {name for name in members if ".wants/" in name}
    for target, unit in (
        ("multi-user.target", "amphora-agent.service"),
        ("multi-user.target", "prometheus-proxy.service"),
        ("amphora-agent.service", "certs-ramfs.service"),
    ):
        assert f"etc/systemd/system/{target}.wants/{unit}" in wants


#: Files that Octavia's controller, the agent, HAProxy, rsyslog, dhclient or cloud-init find by their path.
CONTRACT = {
    "etc/cloud/cloud.cfg.d/91-dib-cloud-init-datasources.cfg": 0o644,
    "etc/cloud/cloud.cfg.d/93-dib-cloud-init-disable-datasource-network-activation.cfg": 0o644,
    "etc/dhcp/dhclient-enter-hooks.d/noresolvconf": 0o755,
    "etc/logrotate.d/amphora-agent": 0o644,
    "etc/octavia": 0o755,
    "etc/octavia/certs": 0o755,
    "etc/rsyslog.d/49-haproxy.conf": 0o644,
    "etc/rsyslog.d/55-octavia-socket.conf": 0o644,
    "etc/sysctl.d/99-cloudimg-ipv6.conf": 0o644,
    "etc/sysctl.d/net.netfilter.nf_conntrack_tcp_timeout_fin_wait.conf": 0o644,
    "usr/lib/systemd/system/amphora-agent.service": 0o644,
    "usr/lib/systemd/system/certs-ramfs.service": 0o644,
    "usr/lib/systemd/system/prometheus-proxy.service": 0o644,
    "usr/local/bin/certfs-ramfs": 0o755,
    "usr/local/bin/lvs-masquerade.sh": 0o755,
    "var/lib/haproxy": 0o755,
    "var/lib/octavia": 0o755,
    "var/lib/octavia/haproxy-default-user-group.conf": 0o644,
    "var/lib/octavia/ping-wrapper.sh": 0o755,
}


def test_what_octavia_finds_by_its_path(members) -> None:
    assert {path: members[path].mode for path in CONTRACT} == CONTRACT
    assert members["usr/local/bin/udp-masquerade.sh"].linkname == "lvs-masquerade.sh"


def test_no_tests_no_installer_no_compiler_and_byte_code_of_what_is_imported_only(members) -> None:
    inside = [name.removeprefix(f"{VENV}/") for name in members if name.startswith(f"{VENV}/")]
    assert not [name for name in inside if "/tests/" in name or name.startswith("include/")]
    assert not [name for name in inside if re.match(r"bin/pip|lib/[^/]+/site-packages/pip/", name)]
    assert not members.keys() & {"usr/bin/gcc", "usr/bin/cc", "usr/bin/git"}
    compiled = {name for name in inside if name.endswith(".pyc")}
    site = "lib/python3.13/site-packages"
    assert f"{site}/octavia/cmd/__pycache__/agent.cpython-313.pyc" in compiled
    assert not [name for name in compiled if name.startswith(f"{site}/networkx/")]
    assert all(members[f"{VENV}/{name}"].uid == 0 for name in inside)


def test_an_agent_that_cannot_be_imported_is_found(built, run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """Whatever the cache says; and nothing is fetched where it has all."""
    cache = tmp_path / "cache/amphora-mkimage/bases"
    cache.mkdir(parents=True)
    kept, *_ = (cache_dir / "amphora-mkimage/bases").glob(f"{AGENT.key}-*")
    for path in (cache_dir / "amphora-mkimage/bases").iterdir():
        if not path.name.startswith((".", AGENT.key)):
            (cache / path.name).symlink_to(path)
    broken = cache / "broken"
    without = f"tar --delete --wildcards -f - '{Path(VENV).name}/lib/*/pyroute2/*'"
    subprocess.run(f"zstd -dcq {kept} | {without} | zstd -1 -q -o {broken}", shell=True, check=True)
    digest = hashlib.sha256(broken.read_bytes()).hexdigest()
    broken.rename(cache / f"{AGENT.key}-{digest}.tar.zst")
    output = tmp_path / "output"
    output.mkdir()
    done = run_cli(
        *("-i", "debian-minimal", "-t", "tar", "-o", output / "a", "-w", output, "-c", tmp_path / "cache"),
        env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple"},
    )
    assert done.returncode == 1, done.stderr
    assert "unpack the cached amphora agent" in done.stderr
    assert "fetch the amphora agent" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert line.endswith("the amphora agent cannot be imported by the image's Python")
    assert "pyroute2" in done.stderr
    assert "Traceback" not in done.stderr.partition("error:")[0]
    assert list(output.iterdir()) == []


def get(identity: agent.Identity, path: str, *, known: bool = True) -> dict:
    context = ssl.create_default_context(cafile=str(identity.directory / "server_ca.pem"))
    context.check_hostname = False  # the certificate names the amphora
    if known:
        context.load_cert_chain(identity.directory / "client.pem", identity.directory / "client.key")
    connection = http.client.HTTPSConnection("127.0.0.1", agent.PORT, timeout=60, context=context)
    connection.request("GET", path)
    answer = connection.getresponse()
    return {"status": answer.status, **json.loads(answer.read())}


@contextlib.contextmanager
def started(built, root: Path) -> Iterator[NamespaceGuest]:
    """The tar unpacked, with a loopback and no other network; inside :func:`userns.run`."""
    root.mkdir()
    userns.mount("tmpfs", root, "tmpfs", 0, "mode=755")
    subprocess.run(["tar", "-xf", built.tar, "-C", root, "--numeric-owner"], check=True)
    userns.without_network()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    guest = NamespaceGuest(root, Console(io.StringIO()))
    with guest.mounted():
        yield guest


def test_the_agent_of_the_tar_answers_those_whom_it_knows(built, tmp_path: Path) -> None:
    """The tar as a root file system with namespaces of its own, and the agent in it as its unit would start it."""
    (tmp_path / "identity").mkdir()
    identity = agent.make_identity(tmp_path / "identity", Console(io.StringIO()))

    def work() -> dict[str, dict]:
        with started(built, tmp_path / "root") as guest:
            for path, text in identity.files(NETWORKS[Kind.USER]).items():
                guest.write(path, text.encode())
            argv = ["chroot", guest.root, "/usr/local/bin/amphora-agent", "--config-file", agent.CONFIG]
            child = subprocess.Popen(argv, env=GUEST_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                return ask(identity)
            finally:
                child.kill()

    found = userns.run(work)
    assert found["/"] == {"status": 200, "api_version": "1.0"}
    packages = {p["name"]: p["version"] for p in json.loads(built.tar_manifest.read_text())["packages"]}
    for name in ("haproxy", "keepalived", "ipvsadm"):
        assert packages[name].endswith(found["/1.0/info"][f"{name}_version"])
    assert found["/1.0/details"]["listeners"] == []
    assert found["/1.0/details"]["cpu_count"] > 0
    assert found["stranger"] == {"refused": True}


def ask(identity: agent.Identity) -> dict[str, dict]:
    """Ask until it answers, then all that an amphora without a load balancer can tell."""
    for _ in range(240):
        try:
            found = {"/": get(identity, "/")}
            break
        except OSError:
            time.sleep(0.5)
    else:
        pytest.fail("the agent does not answer")
    found |= {path: get(identity, path) for path in ("/1.0/info", "/1.0/details")}
    try:
        found["stranger"] = get(identity, "/", known=False)
    except (OSError, http.client.HTTPException):
        found["stranger"] = {"refused": True}
    return found


#: As Octavia's templates write it for a PING monitor; the last address is nobody's (RFC 5737).
PING_MONITOR = """\
global
    user nobody
    stats socket /run/stats mode 0666
    external-check
    insecure-fork-wanted
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
listen members
    bind 127.0.0.1:8080
    option external-check
    external-check command /var/lib/octavia/ping-wrapper.sh
    server four 127.0.0.1:9 check inter 500 rise 1 fall 1
    server six [::1]:9 check inter 500 rise 1 fall 1
    server nobody 192.0.2.1:9 check inter 500 rise 1 fall 1
"""


def test_a_ping_monitor_of_the_images_haproxy(built, tmp_path: Path) -> None:
    """HAProxy gives the script an empty PATH and runs it as an ordinary user."""

    def work() -> dict[str, str]:
        with started(built, tmp_path / "root") as guest:
            # All groups that this namespace has; of the system's own setting it has not all.
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65534")
            guest.write("/run/haproxy.cfg", PING_MONITOR.encode())
            files = ["-f", "/run/haproxy.cfg", "-f", "/var/lib/octavia/haproxy-default-user-group.conf"]
            argv = ["chroot", guest.root, "/usr/sbin/haproxy", "-db", *files]
            child = subprocess.Popen(argv, env=GUEST_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                return checked(guest.root / "run/stats")
            finally:
                child.kill()

    assert userns.run(work) == {"four": "PROCOK", "six": "PROCOK", "nobody": "PROCERR"}


def checked(place: Path) -> dict[str, str]:
    """What HAProxy's checks say, as soon as each was done ("show stat", HAProxy management guide)."""
    for _ in range(120):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            client.sendall(b"show stat\n")
            lines = b"".join(iter(lambda: client.recv(65536), b"")).decode().lstrip("# ").splitlines()
            rows = [row for row in csv.DictReader(lines) if row["svname"] not in ("FRONTEND", "BACKEND")]
            if rows and all(row["check_status"].startswith("PROC") for row in rows):
                return {row["svname"]: row["check_status"] for row in rows}
        time.sleep(0.5)
    pytest.fail("HAProxy checks nothing")


def test_an_index_that_does_not_answer(run_cli, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    done = run_cli(
        *("-i", "debian-minimal", "-o", output / "a", "-w", output, "-c", tmp_path / "cache"),
        env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"},
    )
    assert done.returncode == 1, done.stderr
    assert "cannot fetch the amphora agent's packages" in done.stderr
    assert "--no-agent" in done.stderr
    assert list(output.iterdir()) == []


def test_a_mirror_that_fails_does_not_wait_for_an_index_that_is_silent(run_cli, tmp_path: Path) -> None:
    """Both are asked at once. The log is whole, though two processes write it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts nothing, so that pip waits
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        done = run_cli(
            *("-i", "debian-minimal", "-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache"),
            *("-l", tmp_path / "log"),
            env={
                "BASE_OS_MIRROR": "http://127.0.0.1:9/debian",
                "PIP_INDEX_URL": index,
                "PIP_CONFIG_FILE": "/dev/null",
                "PIP_DEFAULT_TIMEOUT": "86400",
            },
        )
        silent.settimeout(0)
        silent.accept()  # it was asked
    assert done.returncode == 1, done.stderr
    assert "cannot read the package archive" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log"]  # an empty cache goes with the build that made it
    log = (tmp_path / "log").read_text()
    assert all(log.count(f"] {step}") == 1 for step in ("guest: ", "fetch the amphora agent", "read the package arch"))
    evidence = [line.strip() for line in done.stderr.splitlines() if line.lstrip().startswith("W: ")]
    assert evidence and [line for line in evidence if line not in log] == []


def test_nothing_is_left_of_a_fetch_that_is_killed(start_cli, tmp_path: Path) -> None:
    marker, temporary = f"AMPHORA_TEST_MARKER={tmp_path}", tmp_path / "temporary"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        child = start_cli(
            *("-i", "debian-minimal", "-o", tmp_path / "a", "-w", tmp_path, "-c", tmp_path / "cache"),
            env={
                **dict([marker.split("=", 1)]),
                "TMPDIR": str(temporary),
                "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple",
                "PIP_CONFIG_FILE": "/dev/null",
                "PIP_DEFAULT_TIMEOUT": "86400",
            },
            stderr=subprocess.DEVNULL,
        )
        silent.settimeout(300)
        connection, _ = silent.accept()
        with connection:
            assert [path for path in temporary.iterdir() if path.name.startswith("amphora-mkimage-")]
            child.kill()
            child.wait(timeout=60)
            assert wait_until(lambda: not [*marked(marker.encode()), *temporary.glob("amphora-mkimage-*")])
    # The cache that it made, and put nothing into, goes too.
    assert wait_until(lambda: {path.name for path in tmp_path.iterdir()} == {"temporary"})
