"""The amphora agent's parts.

An image that was built without the agent, and says so in its manifest, lacks them by intention; from any other image
they are asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from amphora_mkimage.verify import agent_python, fstab, scripts
from amphora_mkimage.verify.result import Check, Finding, Result, fail, info, not_applicable, passed, some
from amphora_mkimage.verify.subject import Subject

_COMMANDS = (
    "amphora-agent",
    "amphora-interface",
    "haproxy-vrrp-check",
    "amphora-health-checker",
    "prometheus-proxy",
)
_UNITS = ("amphora-agent.service", "prometheus-proxy.service", "certs-ramfs.service")
_MASQUERADE = "/usr/local/bin/lvs-masquerade.sh"
_CERTFS = "/usr/local/bin/certfs-ramfs"
#: Where the agent writes the units of load balancers (octavia/amphorae/backends/agent/api_server/util.py).
_UNIT_DIRECTORY = "/usr/lib/systemd/system"
_NEVER_WRITTEN = ("cramfs", "erofs", "iso9660", "squashfs")
_RSYSLOG = "/etc/rsyslog.conf"
_PROFILE = "/etc/apparmor.d/usr.sbin.rsyslogd"
_SOCKET = "/run/rsyslog/octavia/log"


def _agent_part(function: Callable[[Subject], Iterator[Finding]]) -> Callable[[Subject], Iterator[Finding]]:
    """Make what is missing a remark where the image was built without the agent."""

    def check(subject: Subject) -> Iterator[Finding]:
        findings = list(function(subject))
        missing = [finding for finding in findings if finding.result in (Result.FAIL, Result.WARN)]
        if missing and not subject.expected.agent:
            return iter([info("not in this image (built without the agent)")])
        return iter(findings)

    return check


@_agent_part
def commands(subject: Subject) -> Iterator[Finding]:
    """Look for the agent's programs."""
    found = {name: subject.program(name) for name in _COMMANDS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        yield fail(f"not in a service's PATH: {some(missing)}")
    for path in found.values():
        problem = scripts.problem(subject, path) if path else ""
        if problem:
            yield fail(f"{path} {problem}")


@_agent_part
def masquerade(subject: Subject) -> Iterator[Finding]:
    """Look for the script whose path the agent has hard-coded."""
    problem = scripts.problem(subject, _MASQUERADE)
    if problem:
        yield fail(f"{_MASQUERADE} {problem}: plugging a VIP fails")


@_agent_part
def units(subject: Subject) -> Iterator[Finding]:
    """Check the agent's units, and that what they start is there."""
    for unit in _UNITS:
        if not subject.has_unit(unit):
            yield fail(f"there is no {unit}")
        elif subject.is_masked(unit):
            yield fail(f"{unit} is masked", f"systemctl unmask {unit}")
        elif unit not in subject.enabled_units:
            yield fail(f"{unit} is not enabled", f"systemctl enable {unit}")
        for program in subject.started_by(unit):
            if not subject.tree.is_executable(program):
                yield fail(f"{unit} starts {program}, which is not there or not executable")
    problem = scripts.problem(subject, _CERTFS)
    if problem:
        yield fail(f"{_CERTFS} {problem}: certs-ramfs.service fails, and the agent with it")


@_agent_part
def unit_directory(subject: Subject) -> Iterator[Finding]:
    """Check that the agent can write the units of load balancers, which it does where the distribution's are."""
    found = subject.tree.resolve(_UNIT_DIRECTORY)
    if found is None or not found[1].is_directory:
        yield fail(f"{_UNIT_DIRECTORY} is not a directory: no load balancer can be started")
    for entry in fstab.parse_fstab(subject.tree.text("/etc/fstab")):
        above = f"{_UNIT_DIRECTORY}/".startswith(f"{entry.mountpoint.rstrip('/')}/")
        if above and ("ro" in entry.options or entry.type in _NEVER_WRITTEN):
            yield fail(f"fstab mounts {entry.mountpoint} read-only: the agent cannot write units to {_UNIT_DIRECTORY}")
    for boot in subject.boot_entries[:1]:
        if boot.option("ostree") or boot.option("systemd.volatile") in ("yes", "state"):
            yield fail("the system's /usr is read-only (kernel command line): the agent cannot write units there")


@_agent_part
def log_socket(subject: Subject) -> Iterator[Finding]:
    """Check the socket through which HAProxy logs out of its network namespace."""
    main, files = subject.lines(_RSYSLOG), subject.drop_ins("/etc/rsyslog.d", "*.conf")
    lines = [*main, *(line for path in files for line in subject.lines(path))]
    if not any(_SOCKET in line for line in lines):
        yield fail(f"rsyslog does not listen on {_SOCKET} (55-octavia-socket.conf)")
    if not any("/etc/rsyslog.d/" in line for line in main):
        yield fail(f"{_RSYSLOG} does not include /etc/rsyslog.d/*.conf: the agent's socket is not made")
    if not any(re.search(r"(?:load=\"|\$ModLoad\s+)imuxsock", line, re.I) for line in lines):
        yield fail("rsyslog does not load imuxsock: the agent's socket is not made")
    yield from _apparmor(subject)


def _apparmor(subject: Subject) -> Iterator[Finding]:
    """Check that AppArmor lets rsyslog have the socket, and HAProxy reach it (https://bugs.launchpad.net/bugs/1373070)."""
    profile = subject.tree.text(_PROFILE)
    disabled = subject.tree.entry(f"{_PROFILE.replace('apparmor.d/', 'apparmor.d/disable/')}", follow=False)
    head = re.search(r"^[^#\n]*/usr/sbin/rsyslogd\b[^{\n]*\{", profile, re.MULTILINE)
    if disabled or head is None or not subject.program("apparmor_parser") or "complain" in head[0]:
        return
    rules = [profile, *(subject.tree.text(path) for path in subject.drop_ins("/etc/apparmor.d/rsyslog.d", "*"))]
    if not any(_SOCKET in text for text in rules):
        yield fail(f"AppArmor's profile of rsyslog does not allow {_SOCKET} (rsyslog.d/octavia)")
    if "attach_disconnected" not in head[0]:
        yield fail("AppArmor's profile of rsyslog has no attach_disconnected: HAProxy's messages are lost")


@_agent_part
def directories(subject: Subject) -> Iterator[Finding]:
    """Look for the directories that the controller's files go to."""
    wanted = ("/etc/octavia", "/etc/octavia/certs", "/var/lib/octavia")
    missing = [path for path in wanted if not subject.tree.is_directory(path)]
    if missing:
        yield fail(f"not there: {some(missing)}")


def source(subject: Subject) -> Iterator[Finding]:
    """Tell which agent it is, where the build recorded it."""
    paths = ("/opt/amphora-agent.gitref", "/opt/octavia-lib.gitref")
    recorded = [f"{path}: {subject.tree.text(path).strip()[:64]}" for path in paths if subject.tree.is_file(path)]
    yield passed("; ".join(recorded)) if recorded else not_applicable("not recorded")


GROUP = "agent"
CHECKS = (
    Check("agent.commands", GROUP, "the agent's programs", commands),
    Check("agent.imports", GROUP, "what the agent imports", _agent_part(agent_python.imports)),
    Check("agent.masquerade", GROUP, "script for masquerading", masquerade),
    Check("agent.units", GROUP, "the agent's units", units),
    Check("agent.unit-directory", GROUP, "the agent can write units", unit_directory),
    Check("agent.log-socket", GROUP, "the agent's log socket", log_socket),
    Check("agent.directories", GROUP, "the agent's directories", directories),
    Check("agent.source", GROUP, "source of the agent", source),
)
