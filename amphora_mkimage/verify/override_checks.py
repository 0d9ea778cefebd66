"""What an image may have brought that works against an amphora: settings that take precedence, units, firewalls.

Each finding names the file. What is right is told here once more, and not taken from what the build removes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from amphora_mkimage.verify import cloud_config, sysctl
from amphora_mkimage.verify.result import Check, Finding, fail, info, passed, warn
from amphora_mkimage.verify.subject import Subject

_IDENTIFY = "/etc/cloud/ds-identify.cfg"
_MODULE_LISTS = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
#: Modules of cloud-init, and what is lost without them.
_NEEDED = {"write_files": "the agent gets no configuration where Octavia sends it as user data"}
_USEFUL = {
    "growpart": "the root does not grow to the flavor's disk",
    "resizefs": "the root does not grow to the flavor's disk",
    "users_groups": "there is nobody whom Nova's key lets in",
    "ssh": "no host keys are made, and Nova's key lets nobody in",
    "runcmd": "logs that Octavia forwards are not sent",
    "scripts_user": "logs that Octavia forwards are not sent",
}

_MODPROBE = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
#: Kernel modules that every amphora loads, and those of one kind of listener or machine.
_VITAL = (
    *("brd", "dm_crypt", "dm_mod", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_pci", "virtio_console", "isofs"),
    *("sr_mod", "cdrom", "nf_conntrack", "nf_tables", "nf_nat", "nft_masq", "nft_nat", "nft_chain_nat"),
)
_PARTIAL = {
    "ip_vs": "UDP and SCTP listeners",
    "ip_vs_rr": "their algorithm ROUND_ROBIN",
    "ip_vs_lc": "their algorithm LEAST_CONNECTIONS",
    "ip_vs_sh": "their algorithm SOURCE_IP",
    "sctp": "SCTP listeners",
    "vfat": "config drives on vfat",
    "nls_cp437": "config drives on vfat",
    "ipv6": "IPv6",
}
_FIREWALLS = {
    "nftables.service": ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables/*", "/etc/nftables.d/*"),
    "netfilter-persistent.service": ("/etc/iptables/rules.v4", "/etc/iptables/rules.v6"),
    "iptables.service": ("/etc/sysconfig/iptables",),
    "ip6tables.service": ("/etc/sysconfig/ip6tables",),
}
_DROPS = (
    re.compile(r"\bhook\s+input\b[^{}]*?\bpolicy\s+drop\b"),  # nft(8)
    re.compile(r"^:INPUT\s+DROP\b", re.MULTILINE),  # iptables-restore(8)
    re.compile(r"^(?:\[\d+:\d+\]\s*)?-A\s+INPUT\s+-j\s+(?:DROP|REJECT)\b", re.MULTILINE),
)
_AGENT_PORT = "9443"
#: Units whose absence nobody notices before an amphora is used.
_UNITS = (
    *(
        "cloud-config.target",
        "cloud-init.target",
        "dbus.service",
        "dbus.socket",
        "local-fs.target",
        "multi-user.target",
    ),
    *("network.target", "network-online.target", "network-pre.target", "systemd-journald.service", "sysinit.target"),
    *("systemd-modules-load.service", "systemd-sysctl.service", "systemd-tmpfiles-setup.service"),
    *("systemd-udevd.service", "systemd-udev-trigger.service", "rsyslog.service"),
)
_INTERFACES = {
    "/etc/network/interfaces.d": r"^\s*iface\s+(?!lo\b)\S+",
    "/etc/netplan": r"\S",
    "/etc/systemd/network": r"^\s*(?:Address|Gateway|DHCP)\s*=",
    "/etc/NetworkManager/system-connections": r"\S",
    "/etc/sysconfig/network-scripts": r"^\s*(?:IPADDR|BOOTPROTO|ONBOOT)\s*=",
}


def cloud_init(subject: Subject) -> Iterator[Finding]:
    """Check that nothing takes precedence over what cloud-init has to do in an amphora."""
    found = cloud_config.effective(subject)
    value, path = found.get("network", ("", ""))
    if "disabled" in cloud_config.words(value):
        yield fail(f"{path} turns cloud-init's network off: no address on the management network", "remove network:")
    elif value:
        yield fail(f"{path} has a network of its own for every amphora", "remove network:")
    yield from _identification(subject)
    lists = [found[key] for key in _MODULE_LISTS if key in found]
    modules = {word for text, _ in lists for word in cloud_config.words(text)}
    files = ", ".join(sorted({path for _, path in lists}))
    for name, cost in (*_NEEDED.items(), *_USEFUL.items()) if lists else ():
        if name not in modules:
            severity = fail if name in _NEEDED else warn
            yield severity(f"cloud-init's module {name} is not in {files}: {cost}", "name it in its list")
    yield from _growth(found)


def _identification(subject: Subject) -> Iterator[Finding]:
    """Read what ds-identify, which decides whether cloud-init runs at all, is told."""
    for line in subject.lines(_IDENTIFY):
        key, _, value = line.partition(":")
        names = [name for name in re.split(r"[\s,\[\]\"']+", value) if name]
        if key.strip() == "datasource" and names and "ConfigDrive" not in names:
            yield fail(f"{_IDENTIFY} names the data source {', '.join(names)}: cloud-init reads no other", "remove it")


def _growth(found: dict[str, tuple[str, str]]) -> Iterator[Finding]:
    value, path = found.get("growpart", ("", ""))
    if re.search(r"mode[\"']?\s*:\s*[\"']?(?:off|false)\b", value, re.IGNORECASE):
        yield warn(f"{path} switches growpart off: the root does not grow to the flavor's disk", "remove growpart:")
    value, path = found.get("resize_rootfs", ("", ""))
    if value.strip(" \"'").lower() in ("false", "no", "off"):
        yield warn(f"{path} switches resize_rootfs off: the root does not grow", "remove resize_rootfs:")


def blocked_modules(subject: Subject) -> Iterator[Finding]:
    """Look for modules that modprobe(8) is told not to load."""
    chosen: dict[str, str] = {}
    for directory in _MODPROBE:  # a file shadows those of its name further down (modprobe.d(5))
        for path in subject.drop_ins(directory, "*.conf"):
            chosen.setdefault(posixpath.basename(path), path)
    seen = set()
    for path in chosen.values():
        for line in subject.lines(path):
            command, name, rest = [*line.split(None, 2), "", "", ""][:3]
            name = name.replace("-", "_")
            blocks = command == "blacklist" or (command == "install" and "modprobe" not in rest)
            if blocks and (path, name) not in seen:
                seen.add((path, name))
                yield from _blocked(path, command, name)


def _blocked(path: str, command: str, name: str) -> Iterator[Finding]:
    if name in _VITAL:
        # A blacklisted module is still loaded by who asks for it by name (modprobe.d(5)).
        severity = fail if command == "install" else warn
        yield severity(f"{path} blocks {name}, which an amphora loads ({command})", "remove the line")
    elif name in _PARTIAL:
        yield warn(f"{path} blocks {name}, needed for {_PARTIAL[name]} ({command})", "remove the line")


def contradictions(subject: Subject) -> Iterator[Finding]:
    """Look for kernel settings that no amphora wants; the agent applies all files in its network namespace, too."""
    paths = [path for directory in sysctl.DIRECTORIES for path in subject.drop_ins(directory, "*.conf")]
    applied: dict[str, tuple[str, str]] = {}
    for path in [*sysctl.order(paths), "/etc/sysctl.conf"]:
        applied.update({k: (v, path) for k, v in sysctl.parse(subject.tree.text(path)).items()})
    for key, (value, path) in applied.items():
        for pattern, (unwanted, cost, vital) in sysctl.UNWANTED.items():
            if re.fullmatch(pattern, key) and sysctl.same(value, unwanted):
                found = f"{path} sets {key} = {value}: {cost}"
                if path.startswith(("/usr/lib/", "/lib/")) and not vital:
                    yield info(found)  # a default of the distribution, with which other amphorae live
                else:
                    yield (fail if vital else warn)(found, "remove the line")


def firewall(subject: Subject) -> Iterator[Finding]:
    """Look for rules that are loaded at start and drop what the controller sends."""
    for unit, patterns in _FIREWALLS.items():
        if unit not in subject.enabled_units:
            continue
        for path in (path for pattern in patterns for path in _expanded(subject, pattern)):
            text = "\n".join(subject.lines(path))
            if any(pattern.search(text) for pattern in _DROPS) and not re.search(rf"\b{_AGENT_PORT}\b", text):
                yield fail(f"{unit} loads {path}, which drops what comes in: the management port is blocked",
                           f"systemctl disable {unit}")  # fmt: skip


def audit(subject: Subject) -> Iterator[Finding]:
    """Check that auditd(8) does not end the machine, which hardening guides ask for."""
    for line in subject.lines("/etc/audit/auditd.conf"):
        key, _, value = (part.strip() for part in line.partition("="))
        if key.endswith("_action") and value.lower() in ("halt", "single"):
            yield warn(f"/etc/audit/auditd.conf says {key} = {value}: the amphora ends when logs fill", "suspend")
    for path in subject.drop_ins("/etc/audit/rules.d", "*.rules"):
        if any(re.match(r"-f\s+2\b", line) for line in subject.lines(path)):
            yield warn(f"{path} has -f 2: the kernel panics when the audit log cannot be written", "-f 1")


def _expanded(subject: Subject, pattern: str) -> list[str]:
    return subject.drop_ins(pattern[:-2], "*") if pattern.endswith("/*") else [pattern]


def units(subject: Subject) -> Iterator[Finding]:
    """Look for units of the system that are masked."""
    masked = [unit for unit in _UNITS if subject.is_masked(unit)]
    for unit in masked:
        yield fail(f"{unit} is masked (/etc/systemd/system/{unit})", f"systemctl unmask {unit}")
    yield passed(f"{len(_UNITS)} units")


def interfaces(subject: Subject) -> Iterator[Finding]:
    """Look for interfaces that are configured beside those that cloud-init and the agent configure."""
    paths = [path for directory in _INTERFACES for path in subject.drop_ins(directory, "*")]
    for path in paths:
        name = posixpath.basename(path)
        pattern = _INTERFACES[posixpath.dirname(path)]
        if name in ("ifcfg-lo", "README") or not re.search(pattern, "\n".join(subject.lines(path)), re.MULTILINE):
            continue
        yield warn(f"{path} configures an interface in every amphora, beside cloud-init", "remove it")


GROUP = "configuration"
CHECKS = (
    Check("configuration.cloud-init", GROUP, "cloud-init does its work", cloud_init),
    Check("configuration.modprobe", GROUP, "kernel modules are not blocked", blocked_modules),
    Check("configuration.unwanted-sysctl", GROUP, "no kernel settings that contradict", contradictions),
    Check("configuration.interfaces", GROUP, "no interfaces of another machine", interfaces),
    Check("services.firewall", "services", "no firewall rules that drop", firewall),
    Check("services.audit", "services", "auditd does not halt the machine", audit),
    Check("services.masked", "services", "no unit of the system is masked", units),
)
