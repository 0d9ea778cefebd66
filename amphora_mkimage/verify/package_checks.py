"""Packages and programs: everything that the agent calls, completely installed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage.verify import controller_checks
from amphora_mkimage.verify.result import Check, Finding, fail, info, not_applicable, passed, some, warn
from amphora_mkimage.verify.subject import DEBIAN_FAMILY, RPM_FAMILY, Subject

#: /1.0/info asks the package database for these and answers 500 when one is missing
#: (octavia/amphorae/backends/agent/api_server/amphora_info.py).
_ASKED_BY_THE_AGENT = ("haproxy", "keepalived", "ipvsadm")

#: Packages that an amphora cannot do without, by family; alternatives are separated by "|".
_REQUIRED = {
    "debian": (
        "cloud-init",
        "cryptsetup-bin",
        "e2fsprogs",
        "iproute2",
        "iputils-ping",
        "kmod",
        "mawk|gawk|original-awk",
        "procps",
        "python3",
        "rsyslog",
        "systemd-sysv",
        "udev",
    ),
    "rpm": (
        "NetworkManager",
        "cloud-init",
        "cryptsetup",
        "e2fsprogs",
        "gawk",
        "iproute",
        "iputils",
        "kmod",
        "procps-ng",
        "python3|python3.11|python3.12",
        "rsyslog",
        "systemd",
    ),
}
#: Packages whose absence costs something, and what.
_WANTED = {
    "debian": {
        "ca-certificates": "TLS connections cannot be verified",
        "cloud-guest-utils": "the root does not grow to the flavor's disk",
        "dbus": "systemctl works for root only in part",
        "logrotate": "HAProxy's logs fill the disk",
        "netbase": "programs know no protocol names",
    },
    "rpm": {
        "ca-certificates": "TLS connections cannot be verified",
        "cloud-utils-growpart": "the root does not grow to the flavor's disk",
        "logrotate": "HAProxy's logs fill the disk",
    },
}
_KERNELS = {"debian": r"linux-image-\d", "rpm": r"kernel(-core|-64k-core)?$"}
_SOURCES = "/etc/apt/sources.list"
#: Options of one repository (sources.list(5)), in either format, and of apt as a whole (apt-secure(8)).
_TRUSTED = r"(?:^deb(?:-src)?\s+\[[^]]*|^)(?:trusted|allow-insecure|allow-weak)\s*[:=]\s*yes\b"
_UNCHECKED_APT = (
    r"^[^/#\n]*(?:AllowUnauthenticated|AllowInsecureRepositories|AllowWeakRepositories)\s*\"?(?:true|yes|1|on)\b"
)
_NO_LIST = "there is no list of packages"
_BUILD_TOOLS = r"(?:gcc|g\+\+|gcc-c\+\+|cpp|make|git|automake|build-essential)(?:-\d+)?|.*-dev(?:el)?"

#: Programs by name, or by path where the agent or a unit uses the path.
_PROGRAMS = (
    "/usr/sbin/haproxy",
    "/usr/sbin/keepalived",
    "ipvsadm",
    "/sbin/ip",
    "/sbin/sysctl",
    "/sbin/modprobe",
    "/usr/bin/sort",
    "/usr/bin/join",
    "awk",
    "systemctl",
    "cryptsetup",
    "mkfs.ext2",
    "mount",
    "umount",
    "ping",
)
#: With what the agent asks for versions.
_QUERIES = {"debian": "dpkg-query", "rpm": "rpm"}


def distribution(subject: Subject) -> Iterator[Finding]:
    """Check that the agent knows this distribution; it refuses to start on any other."""
    name = subject.os_release.get("ID", "")
    if name not in (*DEBIAN_FAMILY, *RPM_FAMILY):
        known = ", ".join((*DEBIAN_FAMILY, *RPM_FAMILY))
        yield fail(f"os-release has ID={name or '(none)'}, on which the agent does not start", f"it knows {known}")
    expected, codename = subject.expected.release, subject.os_release.get("VERSION_CODENAME", "")
    version = subject.os_release.get("VERSION_ID", "")
    major = version.partition(".")[0]
    named = {codename, version, major, f"{major}-stream", "stable", "testing", "unstable", "sid"}
    if expected and (codename or version) and expected not in named:
        yield fail(f"it is {codename or version}, but the manifest says {expected}")
    if subject.architecture and subject.expected.arch not in (None, subject.architecture.name):
        yield fail(f"its programs are {subject.architecture.name}, but the manifest says {subject.expected.arch}")
    yield passed(subject.os_release.get("PRETTY_NAME", name))


def database(subject: Subject) -> Iterator[Finding]:
    """Ask for a package database."""
    if subject.packages_problem:
        yield fail(subject.packages_problem, "the agent's /1.0/info needs dpkg or rpm to answer")
    else:
        yield passed(f"{len(subject.packages)} packages")


def required(subject: Subject) -> Iterator[Finding]:
    """Look for every package that an amphora needs."""
    if not subject.packages:
        yield not_applicable(_NO_LIST)
        return
    for name in _ASKED_BY_THE_AGENT:
        if name not in subject.packages:
            yield fail(f"{name} is not in the package database", "install the distribution's package")
    missing = [a for a in _required(subject) if not any(name in subject.packages for name in a.split("|"))]
    if missing:
        yield fail(f"not installed: {some([a.replace('|', ' or ') for a in missing], len(missing))}")
    for name, cost in _WANTED.get(subject.family, {}).items():
        if name not in subject.packages:
            yield warn(f"{name} is not installed: {cost}")
    kernel = _KERNELS.get(subject.family)
    if subject.image.is_disk and kernel and not any(re.match(kernel, name) for name in subject.packages):
        yield fail("no kernel package is installed")


def _required(subject: Subject) -> list[str]:
    wanted = [*_REQUIRED.get(subject.family, ())]
    wanted += ["openssh-server"] if subject.expected.ssh else []
    wanted += ["nftables"] if subject.expected.nftables else []
    return wanted


def state(subject: Subject) -> Iterator[Finding]:
    """Report packages that are not completely installed."""
    if not subject.packages:
        yield not_applicable(_NO_LIST)
    for package in subject.packages.values():
        if package.state:
            yield fail(f"{package.name} is {package.state}", "configure it (dpkg --configure -a) in the image's build")


def manifest(subject: Subject) -> Iterator[Finding]:
    """Compare with the manifest's list."""
    expected = subject.expected
    if not expected.packages:
        yield not_applicable("no manifest lists them")
    for name, version in (expected.packages or {}).items():
        package = subject.packages.get(name)
        if package is None:
            yield fail(f"{name} {version} is in the manifest, but not installed")
        elif version and package.version != version:
            yield fail(f"{name} is {package.version}, but the manifest says {version}")
    if expected.packages:
        unknown = sorted(set(subject.packages) - set(expected.packages))
        if unknown:
            yield fail(f"installed, but not in the manifest: {some(unknown)}")
    kernel = expected.kernel_package
    if kernel and subject.image.is_disk and subject.packages and kernel not in subject.packages:
        yield fail(f"the kernel package {kernel} is not installed")


def programs(subject: Subject) -> Iterator[Finding]:
    """Look for the programs that the agent and its units call."""
    query = _QUERIES.get(subject.family)
    missing = [name for name in (*_PROGRAMS, *filter(None, [query])) if not _has_program(subject, name)]
    if missing:
        yield fail(f"not there, or not executable: {some(missing, len(missing))}")
    if not subject.program("nft"):
        if not (subject.program("iptables") and subject.program("ip6tables")):
            yield fail("there is neither nft nor iptables and ip6tables: plugging a VIP fails")
        elif subject.expected.nftables is not False:
            yield warn("there is no nft: SR-IOV virtual IPs do not work")
    if not subject.program("dhclient"):
        yield info("there is no dhclient: ports without fixed addresses cannot be plugged")


def _has_program(subject: Subject, name: str) -> bool:
    return subject.tree.is_executable(name) if name.startswith("/") else subject.program(name) is not None


def haproxy_version(subject: Subject) -> Iterator[Finding]:
    """Check that HAProxy is not older than what Octavia's templates need."""
    if not subject.packages:
        yield not_applicable(_NO_LIST)
    package = subject.packages.get("haproxy")
    match = re.match(r"(?:\d+:)?(\d+)\.(\d+)", package.version) if package else None
    if match and (int(match[1]), int(match[2])) < (1, 8):
        yield fail(f"HAProxy {match[0]} is too old", "Octavia needs 1.8 or later")
    elif package:
        yield from controller_checks.refusals(subject, package.version)


def unwanted(subject: Subject) -> Iterator[Finding]:
    """Report what must not, or need not, be in an amphora."""
    if not subject.packages:
        yield not_applicable(_NO_LIST)
    if "firewalld" in subject.packages:
        yield fail("firewalld is installed: it blocks the management port", "remove it")
    if subject.expected.ssh is False and "openssh-server" in subject.packages:
        yield fail("openssh-server is installed, though no SSH was asked for")
    tools = sorted(name for name in subject.packages if re.fullmatch(_BUILD_TOOLS, name))
    if tools:
        yield warn(f"build tools are left: {some(tools)}", "remove them: larger image, easier attacks")


def repositories(subject: Subject) -> Iterator[Finding]:
    """Report repositories whose packages nobody signed; an operator who installs something gets whatever is sent."""
    tree = subject.tree
    for path in [
        _SOURCES,
        *subject.drop_ins(f"{_SOURCES}.d", "*.list"),
        *subject.drop_ins(f"{_SOURCES}.d", "*.sources"),
    ]:
        if re.search(_TRUSTED, "\n".join(subject.lines(path)), re.MULTILINE | re.IGNORECASE):
            yield warn(f"{path} has a repository whose signature is not checked", "name its key (Signed-By)")
    for path in ["/etc/apt/apt.conf", *subject.drop_ins("/etc/apt/apt.conf.d", "*")]:
        if re.search(_UNCHECKED_APT, tree.text(path), re.MULTILINE | re.IGNORECASE):
            yield warn(f"{path} lets apt take packages without a signature", "remove it")
    for path in ["/etc/dnf/dnf.conf", "/etc/yum.conf", *subject.drop_ins("/etc/yum.repos.d", "*.repo")]:
        unsigned = [name for name, section in _sections(subject.lines(path)).items() if _unsigned(name, section)]
        if unsigned:
            yield warn(f"{path} does not check packages of {some(unsigned)}", "set gpgcheck=1, and name the key")


def _sections(lines: list[str]) -> dict[str, dict[str, str]]:
    """Read an INI file; a stranger's, so that nothing of it is an error."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in lines:
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        key, separator, value = line.partition("=")
        if separator:
            current[key.strip().lower()] = value.strip().lower()
    return sections


def _unsigned(name: str, section: dict[str, str]) -> bool:
    """Tell whether a repository that is switched on, or [main], switches the check off."""
    off = ("0", "false", "no", "off")
    on = name == "main" or section.get("enabled", "1") not in off
    return on and section.get("gpgcheck", section.get("pkg_gpgcheck", "1")) in off


GROUP = "packages"
CHECKS = (
    Check("packages.distribution", GROUP, "a distribution that the agent knows", distribution),
    Check("packages.database", GROUP, "package database", database),
    Check("packages.required", GROUP, "required packages", required),
    Check("packages.state", GROUP, "packages completely installed", state),
    Check("packages.manifest", GROUP, "packages as the manifest lists them", manifest),
    Check("packages.programs", GROUP, "programs that the agent calls", programs),
    Check("packages.haproxy", GROUP, "HAProxy takes what its controllers write", haproxy_version),
    Check("packages.unwanted", GROUP, "nothing that does not belong", unwanted),
    Check("packages.repositories", GROUP, "repositories are signed", repositories),
)
