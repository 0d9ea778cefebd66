"""verify on amphorae that are complete in another way, of another family, or with pinned CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_rpm import rpm_database
from verify_spoils import (
    APPARMOR,
    RULE,
    Spoil,
    append,
    both,
    chmod,
    confined,
    distribution,
    link,
    nothing,
    remove,
    replace,
    wanted_by,
    write,
)
from verify_tree import AGENT_PROGRAMS, SITE, VENV, TreeBuilder, amphora, check_tar

from amphora_mkimage.verify.expectations import Expectations
from amphora_mkimage.verify.result import Result

FAIL, WARN, PASS = Result.FAIL, Result.WARN, Result.PASS

RIGHT: list[tuple[str, Spoil]] = [
    *(("packages.distribution", distribution(name))
        for name in ("ubuntu", "debian", "fedora", "rhel", "rocky", "centos")),
    ("packages.repositories", write("/etc/yum.repos.d/x.repo", "[x]\ngpgcheck=0\nenabled=0\n[y]\ngpgcheck=1\n")),
    ("packages.repositories", write("/etc/apt/apt.conf.d/1", '// AllowUnauthenticated "true";\n')),
    ("packages.repositories", write("/etc/apt/sources.list", "# deb [trusted=yes] http://m/ x y\n")),
    ("agent.log-socket", confined("flags=(complain,attach_disconnected) ", RULE)),
    ("agent.log-socket", confined("flags=(complain) ", "")),
    ("agent.log-socket", both(confined("", ""), link("/etc/apparmor.d/disable/usr.sbin.rsyslogd", APPARMOR))),
    ("agent.log-socket", both(confined("", ""), remove("/usr/sbin/apparmor_parser"))),
    ("agent.log-socket", write("/etc/rsyslog.conf",
        'module(load="imuxsock" SysSock.Use="off")\ninclude(file="/etc/rsyslog.d/*.conf" mode="optional")\n')),
    ("agent.unit-directory", append("/etc/fstab", "LABEL=data /usr/share ext4 ro 0 2\n")),
    ("agent.commands", both(
        write("/usr/local/bin/amphora-agent", "#!/usr/bin/env python3\n", 0o755), write("/usr/bin/env", "", 0o755))),
    *(("configuration.ping-wrapper", write("/var/lib/octavia/ping-wrapper.sh", f"#!/bin/sh\n{text}\n", 0o755))
        for text in ("PATH=/bin\nping -q x", "/usr/bin/ping -q x", "# ping -q x")),
    # A distribution's own agent: no environment, Debian's one directory for all versions.
    ("agent.imports", lambda tree: distribution_agent(tree, "/usr/lib/python3/dist-packages")),
    ("agent.imports", lambda tree: distribution_agent(tree, "/usr/lib64/python3.13/site-packages")),
    ("agent.imports", both(
        replace(f"{VENV}/pyvenv.cfg", "= false", "= true"),
        lambda tree: tree.write("/usr/lib/python3/dist-packages/flask/__init__.py"), remove(f"{SITE}/flask"))),
    ("services.log-rotation", both(
        write("/etc/logrotate.conf", "include /etc/logrotate.d\n"),
        write("/etc/logrotate.d/haproxy", "/var/log/x.log\n/var/log/haproxy.log\n{\n hourly\n size=250M\n}\n"),
        write("/etc/systemd/system/logrotate.timer.d/50.conf", "[Timer]\nOnCalendar=hourly\n"))),
    ("services.cloud-init", both(
        remove("/usr/lib/systemd/system-generators/cloud-init-generator"),
        link(wanted_by("cloud-init.target"), "/usr/lib/systemd/system/cloud-init.target"))),
]  # fmt: skip


def distribution_agent(tree: TreeBuilder, directory: str) -> None:
    for path, entry in list(tree.files.items()):
        if path.startswith(f"{SITE}/"):
            tree.files[path.replace(SITE, directory)] = entry
    tree.remove(VENV)
    for name in AGENT_PROGRAMS:
        tree.replace(f"/usr/local/bin/{name}", f"{VENV}/bin/python3", "/usr/bin/python3")


@pytest.mark.parametrize(("identifier", "change"), RIGHT, ids=[f"{r[0]}-{n}" for n, r in enumerate(RIGHT)])
def test_what_is_right_in_another_way(identifier: str, change: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    change(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")[identifier]
    assert outcome.result is PASS, outcome.findings


def redhat(tree: TreeBuilder, tmp_path: Path) -> None:
    tree.remove("/var/lib/dpkg")
    tree.remove("/usr/bin/dpkg-query")
    tree.write("/usr/lib/os-release", "ID=fedora\nVERSION_ID=42\n")
    tree.write("/usr/lib/sysimage/rpm/rpmdb.sqlite", rpm_database(["haproxy"], tmp_path / "rpmdb.sqlite"))
    tree.write("/usr/bin/rpm", "", 0o755)
    tree.write("/etc/selinux/config", "# SELINUX=disabled\nSELINUX=permissive\nSELINUXTYPE=targeted\n")


@pytest.mark.parametrize(
    ("identifier", "result", "words", "expected", "spoil"),
    [
        ("packages.programs", PASS, "", Expectations(), nothing),
        ("kernel.processor", PASS, "", Expectations(), nothing),
        ("kernel.processor", Result.INFO, "x86-64-v3", Expectations(), both(
            write("/usr/lib/os-release", "ID=centos\nVERSION_ID=10\nPLATFORM_ID=platform:el10\n"),
            write("/lib64/ld-linux-x86-64.so.2", "", 0o755))),
        ("packages.programs", FAIL, "rpm", Expectations(), remove("/usr/bin/rpm")),
        ("configuration.selinux", PASS, "permissive", Expectations(enforce_mac=False), nothing),
        ("configuration.selinux", FAIL, "permissive", Expectations(enforce_mac=True), nothing),
        ("configuration.selinux", PASS, "enforcing", Expectations(enforce_mac=True),
            replace("/etc/selinux/config", "=permissive", "=enforcing")),
        ("configuration.selinux", WARN, "not asked for", Expectations(),
            replace("/etc/selinux/config", "=permissive", "=enforcing")),
        ("configuration.selinux", WARN, "autorelabel", Expectations(), write("/.autorelabel")),
    ],
)  # fmt: skip
def test_red_hats_family(
    identifier: str, result: Result, words: str, expected: Expectations, spoil: Spoil, tmp_path: Path
) -> None:
    tree = amphora()
    redhat(tree, tmp_path)
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar", expected)[identifier]
    assert outcome.result is result, outcome.findings
    assert not words or any(words in finding.detail for finding in outcome.findings if finding.result is result)


def pinned(tree: TreeBuilder, place: str = "/etc/tuned/profiles") -> None:
    tree.mkdir("/usr/lib/tuned/profiles")
    tree.write("/etc/tuned/active_profile", "virtual-guest amphora\n")
    tree.write(f"{place}/amphora/tuned.conf", "[script]\nscript=${i:PROFILE_DIR}/script.sh\n")
    tree.write(f"{place}/amphora/script.sh", "#!/bin/sh\n", 0o755)
    tree.link(wanted_by("tuned.service"), "/usr/lib/systemd/system/tuned.service")


@pytest.mark.parametrize(
    ("result", "words", "spoil"),
    [
        (PASS, "", nothing),
        (FAIL, "word amphora", write("/etc/tuned/active_profile", "virtual-guest\n")),
        (FAIL, "no profile", remove("/etc/tuned/profiles/amphora")),
        (FAIL, "mode 0644", chmod("/etc/tuned/profiles/amphora/script.sh", 0o644)),
        (FAIL, "not enabled", remove(wanted_by("tuned.service"))),
        # Where tuned before version 2.23 looked.
        (FAIL, "no profile", both(remove("/etc/tuned"), lambda tree: pinned(tree, "/etc/tuned"))),
        (PASS, "", both(
            remove("/etc/tuned"), lambda tree: pinned(tree, "/etc/tuned"), remove("/usr/lib/tuned/profiles"))),
    ],
)  # fmt: skip
def test_cpu_pinning(result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    pinned(tree)
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar", Expectations(cpu_pinning=True))["configuration.cpu-pinning"]
    assert outcome.result is result, outcome.findings
    assert not words or any(words in finding.detail for finding in outcome.findings)
