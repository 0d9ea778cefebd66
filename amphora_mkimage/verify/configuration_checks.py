"""The configuration that makes a distribution an amphora."""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage.verify import controller_checks, scripts, sysctl
from amphora_mkimage.verify.result import Check, Finding, fail, info, not_applicable, passed, some, warn
from amphora_mkimage.verify.subject import Subject

_GROUP_CONFIG = "/var/lib/octavia/haproxy-default-user-group.conf"
_PING_WRAPPER = "/var/lib/octavia/ping-wrapper.sh"
_TUNED = "/etc/tuned"


def kernel_settings(subject: Subject) -> Iterator[Finding]:
    """Check each expected key: a file of its own, the right value, and that nothing overrides it."""
    paths = [path for directory in sysctl.DIRECTORIES for path in subject.drop_ins(directory, "*.conf")]
    applied: dict[str, tuple[str, str]] = {}
    for path in [*sysctl.order(paths), "/etc/sysctl.conf"]:  # procps' sysctl --system reads the latter last
        applied.update({k: (v, path) for k, v in sysctl.parse(subject.tree.text(path)).items()})
    missing = []
    for key, expected in sysctl.EXPECTED.items():
        own = f"/etc/sysctl.d/{key}.conf"
        final, source = applied.get(key, ("", ""))
        value = sysctl.parse(subject.tree.text(own)).get(key)
        if value is None and sysctl.same(final, expected):
            yield warn(f"{key} is set in {source}, not in {own}", "one file a key lets operators replace one")
        elif value is None:
            missing.append(f"{key} = {expected}")
        elif value.strip("\"'") != value:
            yield fail(f"{own} has quotes around the value, which the kernel does not take", "remove them")
        elif not sysctl.same(value, expected):
            yield fail(f"{own} says {value}, expected {expected}")
        elif not sysctl.same(final, expected):
            yield fail(f"{source} overrides {own}: {key} = {final}")
    if missing:
        yield fail(f"{some(missing)}: not set", "write /etc/sysctl.d/<key>.conf for each")
    yield passed(f"{len(sysctl.EXPECTED)} keys")


def haproxy_group(subject: Subject) -> Iterator[Finding]:
    """Check the file that the agent hands HAProxy with every configuration."""
    lines = subject.lines(_GROUP_CONFIG)
    groups = [line.split()[1] for line in lines if line.startswith("group ") and len(line.split()) == 2]
    if not lines:
        yield fail(f"{_GROUP_CONFIG} does not exist: no listener starts")
    elif not groups or lines[0] != "global":
        yield fail(f"{_GROUP_CONFIG} does not set a group in a global section")
    else:
        known = {line.split(":")[0] for line in subject.lines("/etc/group")}
        if groups[-1] not in known:
            yield fail(f"HAProxy's group {groups[-1]} is not in /etc/group: no listener starts")
        yield passed(groups[-1])


def ping_wrapper(subject: Subject) -> Iterator[Finding]:
    """Check the script of the PING health monitor."""
    problem = scripts.problem(subject, _PING_WRAPPER)
    if problem:
        yield fail(f"{_PING_WRAPPER} {problem}: PING health monitors find every member down", "its mode must be 0755")
    lines = subject.lines(_PING_WRAPPER)
    if any("ping6" in line for line in lines) and not subject.program("ping6"):
        yield fail(f"{_PING_WRAPPER} calls ping6, which is not there")
    # Octavia sets no external-check path, and the default is empty (HAProxy configuration manual).
    bare = any(re.search(r"(?<![/\w.-])ping6?\s+-", line) for line in lines)
    if bare and not any(re.match(r"(?:export\s+)?PATH=", line) for line in lines):
        yield fail(f"{_PING_WRAPPER} calls ping without a path, and HAProxy gives it an empty PATH")


def resolver(subject: Subject) -> Iterator[Finding]:
    """Ask for exactly one nameserver, where nobody answers."""
    entry = subject.tree.entry("/etc/resolv.conf", follow=False)
    servers = [line.split()[1] for line in subject.lines("/etc/resolv.conf") if re.match(r"nameserver\s+\S", line)]
    if entry is None:
        yield fail("/etc/resolv.conf does not exist: dnspython, which the agent imports, refuses to load")
    elif entry.is_link:
        yield warn(f"/etc/resolv.conf is a link to {entry.target}, whose content a resolver service decides")
    elif not servers:
        yield fail("/etc/resolv.conf has no nameserver: dnspython, which the agent imports, refuses to load")
    elif servers != ["127.0.0.1"]:
        yield fail(f"/etc/resolv.conf names {', '.join(servers)}, expected 127.0.0.1 alone", "lookups cost minutes")
    others = [line for line in subject.lines("/etc/resolv.conf") if not line.startswith("nameserver")]
    if others:
        yield warn(f"/etc/resolv.conf has more than a nameserver: {others[0]}")
    hosts = [line for line in subject.lines("/etc/nsswitch.conf") if line.startswith("hosts:")]
    if any("dns" in line.split() for line in hosts):
        yield warn("/etc/nsswitch.conf asks DNS for hosts", "remove dns from its hosts line")


def datasources(subject: Subject) -> Iterator[Finding]:
    """Check the sources that cloud-init looks for."""
    last: list[str] | None = None
    for path in ["/etc/cloud/cloud.cfg", *subject.drop_ins("/etc/cloud/cloud.cfg.d", "*.cfg")]:
        found = _datasource_list(subject.tree.text(path))
        last = found if found is not None else last
    if last is None:
        yield fail("no datasource_list for cloud-init: it tries all, which costs minutes", "name ConfigDrive")
        return
    if "ConfigDrive" not in last:
        yield fail(f"cloud-init looks for {', '.join(last) or 'nothing'}, not for ConfigDrive")
    missing = [name for name in subject.expected.datasources if name not in last and name != "ConfigDrive"]
    if missing:
        yield fail(f"cloud-init does not look for {', '.join(missing)}, which was asked for")
    if "ConfigDrive" in last and not _network_activation_disabled(subject):
        yield warn("cloud-init starts the network itself, and once more beside the system's own service")
    yield passed(", ".join(last))


def _datasource_list(text: str) -> list[str] | None:
    """Read datasource_list from YAML: on one line in brackets, or an item a line. None without one."""
    match = re.search(r"^datasource_list:[ \t]*\[([^\]]*)\]", text, re.MULTILINE)
    if match:
        return [word.strip().strip("\"'") for word in match[1].split(",") if word.strip()]
    match = re.search(r"^datasource_list:[ \t]*\n((?:[ \t]*-[ \t]+\S+[ \t]*\n?)+)", text, re.MULTILINE)
    return re.findall(r"-[ \t]+[\"']?([\w]+)", match[1]) if match else None


def _network_activation_disabled(subject: Subject) -> bool:
    paths = ["/etc/cloud/cloud.cfg", *subject.drop_ins("/etc/cloud/cloud.cfg.d", "*.cfg")]
    return any(re.search(r"^disable_network_activation:\s*true", subject.tree.text(p), re.MULTILINE) for p in paths)


def renderer(subject: Subject) -> Iterator[Finding]:
    """Check that something brings up what cloud-init writes, in the order in which cloud-init prefers it."""
    candidates = {
        "ifupdown": ("ifup", "networking.service"),
        "netplan": ("netplan", "systemd-networkd.service"),
        "NetworkManager": ("NetworkManager", "NetworkManager.service"),
    }
    present = {name: unit for name, (program, unit) in candidates.items() if subject.program(program)}
    running = [name for name, unit in present.items() if unit in subject.enabled_units]
    if running:
        yield passed(running[0])
    elif "netplan" in present:
        yield passed("netplan, whose generator starts systemd-networkd")
    elif present:
        name, unit = next(iter(present.items()))
        yield fail(f"{name} is installed, but {unit} is not enabled: no address on the management network")
    else:
        yield fail("neither ifupdown, netplan nor NetworkManager: no address on the management network")


def logging(subject: Subject) -> Iterator[Finding]:
    """Check that HAProxy's messages are taken."""
    if not subject.program("rsyslogd"):
        yield fail("there is no rsyslogd: no logs, and none forwarded")
    texts = [subject.tree.text(path) for path in subject.drop_ins("/etc/rsyslog.d", "*.conf")]
    if not any("haproxy" in text for text in texts):
        yield warn("no file in /etc/rsyslog.d takes HAProxy's messages")


def _passwords_of_passwd(subject: Subject) -> Iterator[Finding]:
    """Look for passwords where they were before there was a shadow file, and still count (passwd(5))."""
    for line in subject.lines("/etc/passwd"):
        name, _, rest = line.partition(":")
        field = rest.partition(":")[0]
        if not field:
            yield fail(f"{name} has an empty password in /etc/passwd: anybody can log in", "lock the account")
        elif field[0] not in "x*!":
            yield fail(f"{name} has a password in /etc/passwd, where everybody can read its hash", "run pwconv")


def root_account(subject: Subject) -> Iterator[Finding]:
    """Check root's password, and that nobody else has one."""
    expected = subject.expected.root_password
    for line in subject.lines("/etc/shadow"):
        name, _, rest = line.partition(":")
        field = rest.partition(":")[0]
        usable = bool(field) and field[0] not in "!*"
        if not field:
            yield fail(f"{name} has an empty password: anybody can log in", "lock the account")
        elif name == "root":
            if usable and expected == "locked":
                yield fail("root has a password, and none was asked for", "build without -r; see --root-password")
            elif not usable and expected == "set":
                yield fail("root is locked, though a password was asked for")
            else:
                yield passed("root has a password" if usable else "root is locked")
        elif usable:
            yield fail(f"{name} has a password", "lock the account: every amphora would share it")
    yield from _passwords_of_passwd(subject)
    yield from controller_checks.keepalived_account(subject)
    if not subject.tree.is_file("/etc/shadow"):
        yield fail("there is no /etc/shadow")
    superusers = [line.split(":")[0] for line in subject.lines("/etc/passwd") if line.split(":")[2:3] == ["0"]]
    if superusers != ["root"]:
        yield fail(f"accounts with user id 0: {', '.join(superusers) or 'none'}")


def cpu_pinning(subject: Subject) -> Iterator[Finding]:
    """Check the name by which the controller knows that CPUs are pinned, and that tuned pins them."""
    active = subject.tree.text(f"{_TUNED}/active_profile")
    if not subject.expected.cpu_pinning:
        if "amphora" in active.split():
            yield info("CPUs are pinned (tuned profile amphora)")
        return
    if "amphora" not in active.split():
        yield fail(f"{_TUNED}/active_profile does not have the word amphora: the controller pins nothing")
    # Since version 2.23 tuned looks in directories of their own for profiles, and nowhere else.
    place = f"{_TUNED}/profiles" if subject.tree.is_directory("/usr/lib/tuned/profiles") else _TUNED
    profile = subject.tree.text(f"{place}/amphora/tuned.conf")
    if not profile:
        yield fail(f"tuned has no profile amphora in {place}")
    elif "script=" in profile:
        problem = scripts.problem(subject, f"{place}/amphora/script.sh")
        if problem:
            yield fail(f"{place}/amphora/script.sh {problem}")
    if "tuned.service" not in subject.enabled_units:
        yield fail("tuned.service is not enabled: no profile is applied")


def selinux(subject: Subject) -> Iterator[Finding]:
    """Check the mode, and that the first boot does not label every file."""
    found = re.findall(r"^SELINUX=(\w+)", subject.tree.text("/etc/selinux/config"), re.MULTILINE)
    mode = found[-1] if found else ""
    if subject.family != "rpm" or not mode:
        yield not_applicable("no SELinux")
        return
    if subject.expected.enforce_mac and mode != "enforcing":
        yield fail(f"SELinux is {mode}, though it was to enforce")
    elif mode == "enforcing" and not subject.expected.enforce_mac:
        yield warn("SELinux enforces, which was not asked for: what its policy does not know of Octavia is denied")
    if subject.tree.exists("/.autorelabel"):
        yield warn("/.autorelabel exists: the first boot labels every file and restarts", "label them in the build")
    yield passed(mode)


GROUP = "configuration"
CHECKS = (
    Check("configuration.sysctl", GROUP, "kernel settings", kernel_settings),
    Check("configuration.haproxy-group", GROUP, "HAProxy's group", haproxy_group),
    Check("configuration.ping-wrapper", GROUP, "script of the PING health monitor", ping_wrapper),
    Check("configuration.resolver", GROUP, "no name resolution", resolver),
    Check("configuration.datasources", GROUP, "cloud-init's data sources", datasources),
    Check("configuration.network", GROUP, "network renderer", renderer),
    Check("configuration.logging", GROUP, "logging", logging),
    Check("configuration.accounts", GROUP, "passwords", root_account),
    Check("configuration.cpu-pinning", GROUP, "CPU pinning", cpu_pinning),
    Check("configuration.selinux", GROUP, "SELinux", selinux),
)
