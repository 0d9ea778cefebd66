"""Which services start by themselves."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator

from amphora_mkimage.verify.result import Check, Finding, fail, info, passed, warn
from amphora_mkimage.verify.subject import Subject

_CLOUD_INIT_MAIN = "cloud-init-main.service"  # one process for all stages since cloud-init 24.3
_CLOUD_INIT = (_CLOUD_INIT_MAIN, "cloud-init-local.service", "cloud-config.service", "cloud-final.service")
_GENERATORS = ("/usr/lib/systemd/system-generators", "/lib/systemd/system-generators")
_IDENTIFY = "/etc/cloud/ds-identify.cfg"
_CLOUD_INIT_NETWORK = ("cloud-init.service", "cloud-init-network.service")  # renamed in cloud-init 24.3
_SSH = ("ssh.service", "ssh.socket", "sshd.service", "sshd.socket")
_PRESETS = ("/etc/systemd/system-preset", "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset")


def haproxy(subject: Subject) -> Iterator[Finding]:
    """Check that the distribution's HAProxy stays off: the agent starts it with units of its own."""
    if "haproxy.service" in subject.enabled_units:
        yield fail("haproxy.service is enabled", "systemctl disable haproxy.service")
    machine_id = subject.tree.text("/etc/machine-id").strip()
    first_boot = machine_id == "uninitialized" or not subject.tree.is_file("/etc/machine-id")
    if first_boot and subject.has_unit("haproxy.service") and _preset(subject, "haproxy.service") == "enable":
        yield warn(
            "the first boot applies systemd's presets, which enable haproxy.service again",
            "leave /etc/machine-id empty (machine-id(5)), or disable it in a preset",
        )


def _preset(subject: Subject, unit: str) -> str:
    """Tell what a preset says of a unit: the first line that matches; without one "enable" (systemd.preset(5))."""
    chosen: dict[str, str] = {}
    for directory in _PRESETS:
        for path in subject.drop_ins(directory, "*.preset"):
            chosen.setdefault(posixpath.basename(path), path)
    for name in sorted(chosen):
        for line in subject.lines(chosen[name]):
            words = line.split()
            if len(words) > 1 and fnmatch.fnmatchcase(unit, words[1]):
                return words[0]
    return "enable"


def cloud_init(subject: Subject) -> Iterator[Finding]:
    """Check that cloud-init runs: it writes the agent's configuration."""
    if not subject.program("cloud-init"):
        yield fail("cloud-init is not installed: the amphora gets no configuration")
        return
    if subject.tree.exists("/etc/cloud/cloud-init.disabled"):
        yield fail("/etc/cloud/cloud-init.disabled exists", "remove it")
    if re.search(r"^policy:\s*disabled", subject.tree.text(_IDENTIFY), re.MULTILINE):
        yield fail(f"{_IDENTIFY} disables it", "remove the policy")
    enabled = subject.enabled_units
    generated = any(subject.tree.is_executable(f"{directory}/cloud-init-generator") for directory in _GENERATORS)
    if not generated and "cloud-init.target" not in enabled:
        yield fail("nothing starts cloud-init.target: there is no generator, and it is not enabled")
    for unit in _CLOUD_INIT:
        if unit not in enabled and (unit != _CLOUD_INIT_MAIN or subject.has_unit(unit)):
            yield fail(f"{unit} is not enabled", f"systemctl enable {unit}")
    if not enabled.intersection(_CLOUD_INIT_NETWORK):
        yield fail("cloud-init's network stage is not enabled", f"systemctl enable {' or '.join(_CLOUD_INIT_NETWORK)}")


def ssh(subject: Subject) -> Iterator[Finding]:
    """Check SSH against what was asked for."""
    enabled = sorted(subject.enabled_units.intersection(_SSH))
    wanted, installed = subject.expected.ssh, subject.tree.is_executable("/usr/sbin/sshd")
    if wanted is False and enabled:
        yield fail(f"{enabled[0]} is enabled, though no SSH was asked for")
    elif wanted and not installed:
        yield fail("there is no sshd")
    elif (wanted or (wanted is None and installed)) and not enabled:
        yield fail("sshd is installed, but not enabled", "systemctl enable ssh.service")
    elif not installed:
        yield info("built without SSH" if wanted is False else "there is no SSH server")
    else:
        yield passed(enabled[0])


def logging(subject: Subject) -> Iterator[Finding]:
    """Check that rsyslog runs."""
    if "rsyslog.service" not in subject.enabled_units:
        yield fail("rsyslog.service is not enabled: no logs, and none forwarded")


def default_target(subject: Subject) -> Iterator[Finding]:
    """Check what systemd starts."""
    for directory in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"):
        path = f"{directory}/default.target"
        if subject.tree.entry(path, follow=False) is None:
            continue
        found = subject.tree.resolve(path)
        name = posixpath.basename(found[0]) if found else ""
        if name not in ("multi-user.target", "graphical.target"):
            yield fail(f"the default target is {name or 'a dangling link'}", "systemctl set-default multi-user.target")
        else:
            yield passed(name)
        return
    yield fail("there is no default target")


def background(subject: Subject) -> Iterator[Finding]:
    """Report what would fetch packages by itself; an amphora resolves no names and is replaced, not updated."""
    for unit in ("dnf-makecache.timer", "apt-daily.timer", "apt-daily-upgrade.timer"):
        if unit in subject.enabled_units:
            yield warn(f"{unit} is enabled", f"systemctl mask {unit}")
    for unit in ("firewalld.service", "ufw.service"):
        if unit in subject.enabled_units and subject.program(unit.partition(".")[0]):
            yield fail(f"{unit} is enabled: it blocks the management port")


GROUP = "services"
CHECKS = (
    Check("services.haproxy", GROUP, "HAProxy left to the agent", haproxy),
    Check("services.cloud-init", GROUP, "cloud-init", cloud_init),
    Check("services.ssh", GROUP, "SSH", ssh),
    Check("services.rsyslog", GROUP, "rsyslog", logging),
    Check("services.target", GROUP, "default target", default_target),
    Check("services.background", GROUP, "no background downloads, no firewall", background),
)
