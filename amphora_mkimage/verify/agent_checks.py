"""The amphora agent's parts (amphora.md 2.11 items 4, 5, 6, 9 and 12).

An image that was built without the agent, and says so in its manifest, lacks them by intention; from any other image
they are asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from amphora_mkimage.verify.result import Check, Finding, Result, fail, info, not_applicable, passed, some, warn
from amphora_mkimage.verify.subject import Subject

_COMMANDS = (
    "amphora-agent",
    "amphora-interface",
    "haproxy-vrrp-check",
    "amphora-health-checker",
    "prometheus-proxy",
)
_IMPORTS = ("octavia", "pyroute2", "flask", "gunicorn")
_UNITS = ("amphora-agent.service", "prometheus-proxy.service", "certs-ramfs.service")
_MASQUERADE = "/usr/local/bin/lvs-masquerade.sh"


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
    missing = [name for name in _COMMANDS if not subject.program(name)]
    if missing:
        yield fail(f"not in a service's PATH: {some(missing)}")


@_agent_part
def imports(subject: Subject) -> Iterator[Finding]:
    """Look for what the agent imports, beside the interpreter that its first line names."""
    path = subject.program("amphora-agent")
    if path is None:
        yield fail("there is no amphora-agent")
        return
    first = subject.tree.read(path, size=256).partition(b"\n")[0].decode(errors="replace")
    match = re.match(r"#!\s*(/\S+)", first)
    if not match or not subject.tree.is_executable(match[1]):
        yield fail(f"{path} has no usable interpreter ({first[:80]!r})")
        return
    prefix = match[1].rpartition("/bin/")[0] or "/usr"
    directories = [f"{prefix}/lib/{name}/site-packages" for name in subject.tree.listdir(f"{prefix}/lib", "python3*")]
    directories += [f"{prefix}/lib/python3/dist-packages", f"{prefix}/lib64/python3/site-packages"]
    for module in _IMPORTS:
        if not any(subject.tree.is_directory(f"{directory}/{module}") for directory in directories):
            yield fail(f"the agent's Python has no {module}: it does not start", f"install it under {prefix}")


@_agent_part
def masquerade(subject: Subject) -> Iterator[Finding]:
    """Look for the script whose path the agent has hard-coded."""
    if not subject.tree.is_executable(_MASQUERADE):
        yield fail(f"there is no executable {_MASQUERADE}: plugging a VIP fails")


@_agent_part
def units(subject: Subject) -> Iterator[Finding]:
    """Check the agent's units."""
    for unit in _UNITS:
        if not subject.has_unit(unit):
            yield fail(f"there is no {unit}")
        elif unit not in subject.enabled_units:
            yield fail(f"{unit} is not enabled")
    if not subject.tree.is_executable("/usr/local/bin/certfs-ramfs"):
        yield fail("there is no executable /usr/local/bin/certfs-ramfs: certs-ramfs.service fails")


@_agent_part
def log_socket(subject: Subject) -> Iterator[Finding]:
    """Check the socket through which HAProxy logs out of its network namespace."""
    texts = [subject.tree.text(path) for path in subject.drop_ins("/etc/rsyslog.d", "*.conf")]
    if not any("/run/rsyslog/octavia/log" in text for text in texts):
        yield fail("rsyslog does not listen on /run/rsyslog/octavia/log (55-octavia-socket.conf)")
    profile = "/etc/apparmor.d/usr.sbin.rsyslogd"
    if subject.tree.is_file(profile) and not subject.tree.is_file("/etc/apparmor.d/rsyslog.d/octavia"):
        yield warn("AppArmor's profile of rsyslog does not allow the agent's socket (rsyslog.d/octavia)")


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
    Check("agent.imports", GROUP, "what the agent imports", imports),
    Check("agent.masquerade", GROUP, "script for masquerading", masquerade),
    Check("agent.units", GROUP, "the agent's units", units),
    Check("agent.log-socket", GROUP, "the agent's log socket", log_socket),
    Check("agent.directories", GROUP, "the agent's directories", directories),
    Check("agent.source", GROUP, "source of the agent", source),
)
