"""Every check of a guest, against a complete amphora and against one defect at a time."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from verify_tree import SITE, VENV, TreeBuilder, amphora, check_tar

from amphora_mkimage.verify.checks import CHECKS
from amphora_mkimage.verify.expectations import Configurations, Expectations
from amphora_mkimage.verify.result import Result

Spoil = Callable[[TreeBuilder], None]


def test_ids_are_unique() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))


def test_a_complete_amphora_has_no_findings(tmp_path: Path) -> None:
    outcomes = check_tar(amphora(), tmp_path / "image.tar")
    wrong = {o.check.id: o.findings for o in outcomes.values() if o.result in (Result.FAIL, Result.WARN, Result.INFO)}
    assert wrong == {}
    passed = [o for o in outcomes.values() if o.result is Result.PASS]
    assert len(passed) > 35, "checks that looked at nothing prove nothing"


def test_what_a_tar_cannot_have_is_not_passed(tmp_path: Path) -> None:
    outcomes = check_tar(amphora(), tmp_path / "image.tar")
    for identifier in ("boot.bios", "boot.fstab", "kernel.file", "kernel.modules", "disk.filesystems"):
        assert outcomes[identifier].result is Result.NOT_APPLICABLE


def _shadow(line: str) -> Spoil:
    return lambda tree: tree.write("/etc/shadow", f"{line}:20000:0:99999:7:::\n")


def _status(package: str, status: str, version: str = "1") -> Spoil:
    stanza = f"\nPackage: {package}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n"
    return lambda tree: tree.append("/var/lib/dpkg/status", stanza)


def _without(package: str) -> Spoil:
    return lambda tree: tree.replace("/var/lib/dpkg/status", f"Package: {package}\n", "Package: x\n")


def _rescue(tree: TreeBuilder) -> None:
    tree.write("/usr/lib/systemd/system/rescue.target")
    tree.link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/rescue.target")


def _enable(unit: str) -> Spoil:
    return lambda tree: tree.link(
        f"/etc/systemd/system/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}"
    )


def _disable(unit: str) -> Spoil:
    return lambda tree: tree.remove(f"/etc/systemd/system/multi-user.target.wants/{unit}")


def _write(path: str, content: str | bytes, mode: int = 0o644) -> Spoil:
    return lambda tree: tree.write(path, content, mode)


def _remove(path: str) -> Spoil:
    return lambda tree: tree.remove(path)


DEFECTS: list[tuple[str, Result, str, Spoil]] = [
    # packages and programs
    (
        "packages.distribution",
        Result.FAIL,
        "almalinux",
        lambda t: t.replace("/usr/lib/os-release", "ID=debian", "ID=almalinux"),
    ),
    ("packages.database", Result.FAIL, "no package database", _remove("/var/lib/dpkg/status")),
    ("packages.database", Result.FAIL, "empty", _write("/var/lib/dpkg/status", "")),
    ("packages.required", Result.FAIL, "ipvsadm", _without("ipvsadm")),
    ("packages.required", Result.FAIL, "rsyslog", _without("rsyslog")),
    ("packages.required", Result.WARN, "logrotate", _without("logrotate")),
    ("packages.state", Result.FAIL, "half-configured", _status("broken", "install ok half-configured")),
    ("packages.state", Result.FAIL, "reinstreq", _status("broken", "install reinstreq installed")),
    ("packages.programs", Result.FAIL, "keepalived", lambda t: t.chmod("/usr/sbin/keepalived", 0o644)),
    ("packages.programs", Result.FAIL, "neither nft", _remove("/usr/bin/nft")),
    ("packages.programs", Result.FAIL, "awk", lambda t: t.link("/usr/bin/awk", "/etc/alternatives/awk")),
    ("packages.haproxy", Result.FAIL, "1.7", _status("haproxy", "install ok installed", "1.7.5-2")),
    ("packages.unwanted", Result.FAIL, "firewalld", _status("firewalld", "install ok installed")),
    ("packages.unwanted", Result.WARN, "gcc-14", _status("gcc-14", "install ok installed")),
    # configuration
    ("configuration.sysctl", Result.FAIL, "somaxconn", _remove("/etc/sysctl.d/net.core.somaxconn.conf")),
    (
        "configuration.sysctl",
        Result.FAIL,
        "quotes",
        _write("/etc/sysctl.d/net.ipv4.tcp_rmem.conf", 'net.ipv4.tcp_rmem = "4096 87380 33554432"\n'),
    ),
    (
        "configuration.sysctl",
        Result.FAIL,
        "says 128",
        _write("/etc/sysctl.d/net.core.somaxconn.conf", "net.core.somaxconn = 128\n"),
    ),
    (
        "configuration.sysctl",
        Result.FAIL,
        "overrides",
        _write("/usr/lib/sysctl.d/zz.conf", "net/core/somaxconn = 128\n"),
    ),
    ("configuration.sysctl", Result.FAIL, "/etc/sysctl.conf overrides", _write("/etc/sysctl.conf", "fs.file-max=1\n")),
    (
        "configuration.haproxy-group",
        Result.FAIL,
        "does not exist",
        _remove("/var/lib/octavia/haproxy-default-user-group.conf"),
    ),
    ("configuration.haproxy-group", Result.FAIL, "not in /etc/group", _write("/etc/group", "root:x:0:\n")),
    (
        "configuration.ping-wrapper",
        Result.FAIL,
        "mode 0644, not 0755",
        lambda t: t.chmod("/var/lib/octavia/ping-wrapper.sh", 0o644),
    ),
    (
        "configuration.resolver",
        Result.FAIL,
        "10.0.0.1",
        _write("/etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 10.0.0.1\n"),
    ),
    ("configuration.resolver", Result.FAIL, "no nameserver", _write("/etc/resolv.conf", "# empty\n")),
    (
        "configuration.resolver",
        Result.WARN,
        "link",
        lambda t: t.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
    ),
    (
        "configuration.resolver",
        Result.WARN,
        "search corp",
        lambda t: t.append("/etc/resolv.conf", "search corp.example\n"),
    ),
    (
        "configuration.datasources",
        Result.FAIL,
        "Ec2",
        _write("/etc/cloud/cloud.cfg.d/99-late.cfg", "datasource_list:\n  - Ec2\n  - None\n"),
    ),
    ("configuration.datasources", Result.WARN, "starts the network", _remove("/etc/cloud/cloud.cfg.d/93-network.cfg")),
    ("configuration.network", Result.FAIL, "not enabled", _disable("networking.service")),
    ("configuration.network", Result.FAIL, "neither", _remove("/usr/sbin/ifup")),
    ("configuration.logging", Result.WARN, "HAProxy", _write("/etc/rsyslog.d/49-haproxy.conf", "")),
    ("configuration.accounts", Result.FAIL, "root has a password", _shadow("root:$y$j9T$x$y")),
    ("configuration.accounts", Result.FAIL, "empty password", _shadow("root:")),
    ("configuration.accounts", Result.FAIL, "ubuntu has a password", _shadow("root:*:1::::::\nubuntu:$6$x$y")),
    (
        "configuration.accounts",
        Result.WARN,
        "keepalived_script",
        lambda t: t.append("/etc/passwd", "keepalived_script:x:990:990::/:/bin/false\n"),
    ),
    ("configuration.accounts", Result.FAIL, "user id 0", lambda t: t.append("/etc/passwd", "toor:x:0:0::/:/bin/sh\n")),
    # services
    ("services.haproxy", Result.FAIL, "enabled", _enable("haproxy.service")),
    ("services.haproxy", Result.WARN, "presets", _write("/etc/machine-id", "uninitialized\n")),
    ("services.cloud-init", Result.FAIL, "disabled", _write("/etc/cloud/cloud-init.disabled", "")),
    ("services.cloud-init", Result.FAIL, "cloud-final", _disable("cloud-final.service")),
    ("services.cloud-init", Result.FAIL, "network stage", _disable("cloud-init-network.service")),
    ("services.ssh", Result.FAIL, "not enabled", _disable("ssh.service")),
    ("services.ssh", Result.FAIL, "not enabled", lambda t: t.link("/etc/systemd/system/ssh.service", "/dev/null")),
    ("services.rsyslog", Result.FAIL, "not enabled", _disable("rsyslog.service")),
    ("services.target", Result.FAIL, "rescue", _rescue),
    ("services.target", Result.FAIL, "dangling", lambda t: t.link("/etc/systemd/system/default.target", "/nowhere")),
    ("services.background", Result.WARN, "apt-daily", _enable("apt-daily.timer")),
    ("services.log-rotation", Result.WARN, "no size", _write("/etc/logrotate.conf", "include /etc/logrotate.d\n")),
    (
        "services.log-rotation",
        Result.WARN,
        "no size",
        _write("/etc/logrotate.d/haproxy", '"/var/log/*.log"\n{\n size 2G\n}\n'),
    ),
    (
        "services.log-rotation",
        Result.WARN,
        "looked at daily only",
        _remove("/etc/systemd/system/logrotate.timer.d/50.conf"),
    ),
    (
        "services.log-rotation",
        Result.WARN,
        "not enabled",
        _remove("/etc/systemd/system/timers.target.wants/logrotate.timer"),
    ),
    # the agent
    ("agent.commands", Result.FAIL, "amphora-interface", _remove("/usr/local/bin/amphora-interface")),
    ("agent.imports", Result.FAIL, "pyroute2", _remove(f"{VENV}/lib/python3.13/site-packages/pyroute2")),
    ("agent.imports", Result.FAIL, "interpreter", _remove(f"{VENV}/bin/python3")),
    ("agent.masquerade", Result.FAIL, "lvs-masquerade", lambda t: t.chmod("/usr/local/bin/lvs-masquerade.sh", 0o644)),
    ("agent.units", Result.FAIL, "certs-ramfs", _remove("/usr/lib/systemd/system/certs-ramfs.service")),
    ("agent.log-socket", Result.FAIL, "octavia/log", _remove("/etc/rsyslog.d/55-octavia-socket.conf")),
    ("agent.directories", Result.FAIL, "/etc/octavia", _remove("/etc/octavia")),
    # leaks
    ("leaks.identity", Result.FAIL, "ssh_host_rsa_key", _write("/etc/ssh/ssh_host_rsa_key", "x", 0o600)),
    ("leaks.identity", Result.FAIL, "machine-id", _write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")),
    ("leaks.identity", Result.FAIL, "random-seed", _write("/var/lib/systemd/random-seed", b"\1" * 32)),
    (
        "leaks.access",
        Result.FAIL,
        "authorized_keys",
        _write("/home/debian/.ssh/authorized_keys", "ssh-ed25519 AAAA me\n"),
    ),
    ("leaks.agent", Result.FAIL, "amphora-agent.conf", _write("/etc/octavia/amphora-agent.conf", "[DEFAULT]\n")),
    ("leaks.agent", Result.FAIL, "server.pem", _write("/etc/octavia/certs/server.pem", "x")),
    ("leaks.cloud-init", Result.FAIL, "ran in this image", _write("/var/lib/cloud/instances/i-1/user-data.txt", "x")),
    (
        "leaks.credentials",
        Result.FAIL,
        "debian.sources",
        _write("/etc/apt/sources.list.d/debian.sources", "URIs: https://me:hunter2@mirror.example/\n"),
    ),
    (
        "leaks.credentials",
        Result.FAIL,
        "auth.conf",
        _write("/etc/apt/auth.conf.d/m.conf", "machine mirror.example login me password hunter2\n"),
    ),
    (
        "leaks.proxies",
        Result.FAIL,
        "apt.conf.d/80proxy",
        _write("/etc/apt/apt.conf.d/80proxy", 'Acquire::http::Proxy "http://p:3128";\n'),
    ),
    ("leaks.proxies", Result.FAIL, "/etc/environment", _write("/etc/environment", "HTTPS_PROXY=http://p:3128\n")),
    (
        "leaks.proxies",
        Result.FAIL,
        "system.conf",
        _write("/etc/systemd/system.conf", '[Manager]\nDefaultEnvironment="LANG=C" "http_proxy=http://p:3128"\n'),
    ),
    (
        "leaks.proxies",
        Result.FAIL,
        "99proxy",
        _write("/etc/apt/apt.conf.d/99proxy", 'Acquire {\n  Retries 3;\n  http { Proxy "http://p:3128"; }\n}\n'),
    ),
    (
        "leaks.proxies",
        Result.FAIL,
        "99proxy",
        _write("/etc/apt/apt.conf.d/99proxy", 'Acquire::http { Proxy "http://p:3128"; }\n'),
    ),
    (
        "leaks.credentials",
        Result.FAIL,
        "own.repo",
        _write("/etc/yum.repos.d/own.repo", "[own]\nusername=u\npassword=secret\n"),
    ),
    ("leaks.proxies", Result.FAIL, "dnf.conf", _write("/etc/dnf/dnf.conf", "[main]\nproxy=http://p:3128\n")),
    (
        "leaks.build-host",
        Result.FAIL,
        "/etc/hosts",
        lambda t: t.write("/etc/hosts", f"127.0.1.1 {socket.gethostname()}\n"),
    ),
    ("leaks.build-host", Result.FAIL, "corp.crt", _write("/usr/local/share/ca-certificates/corp.crt", "x")),
    ("leaks.traces", Result.FAIL, ".bash_history", _write("/root/.bash_history", "passwd\n")),
    ("leaks.traces", Result.WARN, "dpkg.log", _write("/var/log/dpkg.log", "x")),
    ("leaks.traces", Result.WARN, "/tmp/left", _write("/tmp/left", "")),
    ("leaks.caches", Result.WARN, "package lists", _write("/var/lib/apt/lists/mirror_Packages", "x")),
    ("leaks.caches", Result.WARN, "caches", _write("/var/cache/apt/pkgcache.bin", "x")),
    ("leaks.setuid", Result.INFO, "/usr/local/bin/su", _write("/usr/local/bin/su", "", 0o4755)),
]


@pytest.mark.parametrize(("identifier", "result", "words", "spoil"), DEFECTS, ids=[f"{d[0]}-{d[2]}" for d in DEFECTS])
def test_each_defect_is_found(identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")[identifier]
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings if finding.result is result)


def test_no_credential_is_shown(tmp_path: Path) -> None:
    tree = amphora()
    tree.write("/etc/apt/sources.list", "deb https://me:hunter2@mirror.example/ x main\n")
    tree.write("/etc/apt/auth.conf", "machine mirror.example login me password hunter2\n")
    tree.write("/etc/environment", "http_proxy=http://me:hunter2@proxy:3128\n")
    outcomes = check_tar(tree, tmp_path / "image.tar")
    assert outcomes["leaks.credentials"].result is Result.FAIL
    assert "hunter2" not in repr(outcomes)


# --- expectations ----------------------------------------------------------------------------------------------------

WISHES: list[tuple[str, Result, str, Expectations, Spoil]] = [
    ("agent.commands", Result.INFO, "without the agent", Expectations(agent=False), _remove("/usr/local/bin")),
    ("configuration.accounts", Result.FAIL, "locked, though", Expectations(root_password="set"), _remove("/tmp")),
    ("configuration.accounts", Result.PASS, "has a password", Expectations(root_password="set"), _shadow("root:$y$x")),
    ("configuration.accounts", Result.PASS, "has a password", Expectations(root_password="any"), _shadow("root:$y$x")),
    ("services.ssh", Result.FAIL, "no SSH was asked", Expectations(ssh=False), _remove("/tmp")),
    ("packages.unwanted", Result.FAIL, "openssh-server", Expectations(ssh=False), _remove("/tmp")),
    ("services.ssh", Result.FAIL, "no sshd", Expectations(ssh=True), _remove("/usr/sbin/sshd")),
    ("configuration.cpu-pinning", Result.FAIL, "word amphora", Expectations(cpu_pinning=True), _remove("/tmp")),
    (
        "configuration.datasources",
        Result.FAIL,
        "Ec2",
        Expectations(datasources=("ConfigDrive", "Ec2")),
        _remove("/tmp"),
    ),
    ("packages.haproxy", Result.WARN, "Octavia 16.1.0", Expectations(octavia="16.1.0"), _remove("/tmp")),
    (
        "packages.haproxy",
        Result.WARN,
        "Octavia 16.0.1",
        Expectations(),
        _write(f"{SITE}/octavia-16.0.1.dist-info/x", ""),
    ),
    (
        "packages.haproxy",
        Result.PASS,
        "took all 9",
        Expectations(configurations=Configurations(9, ())),
        _remove("/tmp"),
    ),
    (
        "packages.haproxy",
        Result.WARN,
        "for PING",
        Expectations(configurations=Configurations(9, ("PING",))),
        _remove("/tmp"),
    ),
    ("packages.manifest", Result.FAIL, "manifest says 2", Expectations(packages={"haproxy": "2"}), _remove("/tmp")),
    ("packages.manifest", Result.FAIL, "not in the manifest", Expectations(packages={"haproxy": ""}), _remove("/tmp")),
    ("packages.manifest", Result.FAIL, "not installed", Expectations(packages={"gone": "1"}), _remove("/tmp")),
    (
        "packages.distribution",
        Result.FAIL,
        "it is 45",
        Expectations(release="44"),
        _write("/usr/lib/os-release", 'ID=fedora\nVERSION_ID=45\nVERSION_CODENAME=""\n'),
    ),
    ("packages.distribution", Result.FAIL, "bookworm", Expectations(release="bookworm"), _remove("/tmp")),
    ("image.format", Result.FAIL, "qcow2", Expectations(format="qcow2"), _remove("/tmp")),
]


@pytest.mark.parametrize(
    ("identifier", "result", "words", "expected", "spoil"), WISHES, ids=[f"{w[0]}-{w[2]}" for w in WISHES]
)
def test_what_was_asked_for(
    identifier: str, result: Result, words: str, expected: Expectations, spoil: Spoil, tmp_path: Path
) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar", expected)[identifier]
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings)


def test_an_amphora_without_agent_is_complete_when_its_manifest_says_so(tmp_path: Path) -> None:
    outcomes = check_tar(amphora(agent=False), tmp_path / "image.tar", Expectations(agent=False))
    assert {o.result for o in outcomes.values()} <= {Result.PASS, Result.INFO, Result.NOT_APPLICABLE}
    without = check_tar(amphora(agent=False), tmp_path / "image.tar", dataclasses.replace(Expectations()))
    assert [o.check.id for o in without.values() if o.result is Result.FAIL] == [
        "agent.commands", "agent.imports", "agent.masquerade", "agent.units", "agent.log-socket", "agent.directories",
    ]  # fmt: skip


# --- hostile contents ------------------------------------------------------------------------------------------------


def test_a_link_never_leads_out_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch secret.example\n")
    tree = amphora()
    tree.link("/etc/machine-id", str(tmp_path / "machine-id"))
    tree.link("/etc/resolv.conf", f"{'../' * 30}{tmp_path}/resolv.conf")
    outcomes = check_tar(tree, tmp_path / "image.tar")
    assert outcomes["leaks.identity"].result is Result.PASS
    assert "secret" not in repr(outcomes["configuration.resolver"].findings)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    tree = amphora()
    tree.link("/etc/group", "/etc/gshadow")
    tree.link("/etc/gshadow", "/etc/group")
    tree.remove("/boot/grub/grub.cfg")
    tree.link("/etc/sysctl.conf", ".")
    assert check_tar(tree, tmp_path / "image.tar")["configuration.haproxy-group"].result is Result.FAIL


def test_a_file_that_is_too_large_spoils_one_check_only(tmp_path: Path) -> None:
    tree = amphora()
    tree.write("/etc/resolv.conf", b"#" * (17 << 20))
    outcomes = check_tar(tree, tmp_path / "image.tar")
    assert "too large" in outcomes["configuration.resolver"].findings[0].detail
    assert [o.check.id for o in outcomes.values() if o.result is Result.FAIL] == ["configuration.resolver"]


def test_binary_rubbish_is_no_traceback(tmp_path: Path) -> None:
    tree = amphora()
    for path, (mode, content) in list(tree.files.items()):
        if content and path.startswith(("/etc", "/var", "/usr/lib")) and mode & 0o170000 == 0o100000:
            tree.files[path] = (mode, bytes(range(256)) * 4)
    outcomes = check_tar(tree, tmp_path / "image.tar")
    assert outcomes["packages.database"].result is Result.FAIL
