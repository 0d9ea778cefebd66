"""What must not be in an image that many machines start from: identities, secrets, traces of the build host."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from amphora_mkimage.verify.result import Check, Finding, fail, info, passed, some, warn
from amphora_mkimage.verify.subject import Subject
from amphora_mkimage.verify.tree import Entry

_CREDENTIALS = re.compile(r"://[^/\s:@]+:[^/\s@]+@")
_APT_PASSWORD = re.compile(r"\bpassword\s+\S")
_DNF_PASSWORD = re.compile(r"^\s*(?:proxy_)?password\s*=\s*\S", re.MULTILINE)
_PROXY = re.compile(
    r"^\s*(?:export\s+|DefaultEnvironment\s*=.*[\s\"'=])?(?:https?|ftp|all|no)_proxy\s*=\s*[\"']?[^\s\"']"
    r"|^\s*Acquire::(?:https?|ftp)::Proxy(?:-Auto-Detect)?\s"
    r"|^\s*Acquire::(?:https?|ftp)\s*\{[^}]*\bProxy(?:-Auto-Detect)?\s"
    r"|^\s*Acquire\s*\{[^#]*\bProxy(?:-Auto-Detect)?\s+[\"']"
    r"|^\s*proxy\s*=\s*[^\s_]",
    re.IGNORECASE | re.MULTILINE,
)
_PROXY_FILES = (
    "/etc/environment",
    "/etc/profile",
    "/etc/bash.bashrc",
    "/etc/wgetrc",
    "/etc/pip.conf",
    "/etc/yum.conf",
    "/etc/dnf/dnf.conf",
    "/etc/apt/apt.conf",
    "/etc/systemd/system.conf",
    "/root/.bashrc",
    "/root/.profile",
    "/root/.curlrc",
    "/root/.wgetrc",
    "/root/.config/pip/pip.conf",
    "/root/.gitconfig",
)
_PROXY_DIRECTORIES = (
    "/etc/apt/apt.conf.d",
    "/etc/profile.d",
    "/etc/environment.d",
    "/etc/systemd/system.conf.d",
    "/etc/yum.repos.d",
    "/etc/default",
)
_SOURCE_FILES = ("/etc/apt/sources.list", "/etc/pip.conf", "/etc/dnf/dnf.conf", "/etc/yum.conf")
_SOURCE_DIRECTORIES = ("/etc/apt/sources.list.d", "/etc/apt/auth.conf.d", "/etc/yum.repos.d", "/etc/apt/apt.conf.d")
_HISTORIES = (".bash_history", ".python_history", ".lesshst", ".viminfo", ".mysql_history", ".wget-hsts", ".sh_history")
_CA_DIRECTORIES = ("/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors")
_PROGRAM_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local", "/opt", "/usr/libexec", "/usr/lib/openssh", "/root")

#: Programs that distributions ship setuid or setgid. A name, not a proof: what is not among them deserves a look.
_SETUID = frozenset(
    (
        "at",
        "chage",
        "chfn",
        "chsh",
        "crontab",
        "dbus-daemon-launch-helper",
        "dhcp6d",
        "dotlockfile",
        "expiry",
        "fusermount",
        "fusermount3",
        "gpasswd",
        "grub2-set-bootflag",
        "mount",
        "mount.nfs",
        "newgidmap",
        "newgrp",
        "newuidmap",
        "pam_extrausers_chk",
        "pam_timestamp_check",
        "passwd",
        "ping",
        "pkexec",
        "polkit-agent-helper-1",
        "postdrop",
        "postqueue",
        "sg",
        "ssh-agent",
        "ssh-keysign",
        "ssh-sk-helper",
        "staprun",
        "su",
        "sudo",
        "sudoedit",
        "traceroute6.iputils",
        "umount",
        "unix_chkpwd",
        "unix_update",
        "userhelper",
        "usernetctl",
        "utempter",
        "wall",
        "write",
        "write.ul",
    )
)


def _files(subject: Subject, *directories: str) -> list[tuple[str, Entry]]:
    """List the files with content below some directories."""
    found = [item for directory in directories for item in subject.tree.walk(directory)]
    return [(path, entry) for path, entry in found if entry.is_file and entry.size]


def _homes(subject: Subject) -> list[str]:
    return ["/root", *(f"/home/{name}" for name in subject.tree.listdir("/home"))]


def identity(subject: Subject) -> Iterator[Finding]:
    """Look for what should be unique to a machine."""
    keys = [f"/etc/ssh/{name}" for name in subject.tree.listdir("/etc/ssh", "ssh_host_*")]
    if keys:
        yield fail(f"SSH host keys: {some(keys)}", "remove them: cloud-init makes new ones in each amphora")
    machine_id = subject.tree.text("/etc/machine-id").strip()
    if machine_id not in ("", "uninitialized"):
        yield fail("/etc/machine-id holds an id", "empty the file: systemd makes one at the first boot")
    if subject.tree.entry("/etc/machine-id", follow=False) is None:
        yield warn("/etc/machine-id does not exist: systemd cannot keep one on a read-only root")
    dbus = subject.tree.entry("/var/lib/dbus/machine-id", follow=False)
    if dbus and dbus.is_file and dbus.size:
        yield fail("/var/lib/dbus/machine-id holds an id", "remove it, or link it to /etc/machine-id")
    for path in ("/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret"):
        if subject.tree.exists(path):
            yield fail(f"{path} is the same in every amphora", "remove it")
    leases = [path for path, _ in _files(subject, "/var/lib/dhcp", "/var/lib/NetworkManager", "/var/lib/dhclient")]
    if leases:
        yield warn(f"leases and connections of another machine: {some(leases)}", "remove them")


def access(subject: Subject) -> Iterator[Finding]:
    """Look for ways in."""
    for home in _homes(subject):
        for name in ("authorized_keys", "authorized_keys2"):
            if subject.lines(f"{home}/.ssh/{name}"):
                yield fail(f"{home}/.ssh/{name} lets somebody in", "Nova gives amphorae their keys")
        private = [f"{home}/.ssh/{name}" for name in subject.tree.listdir(f"{home}/.ssh", "id_*")]
        if private:
            yield fail(f"private keys: {some(private)}")


def agent_secrets(subject: Subject) -> Iterator[Finding]:
    """Look for configuration and certificates that each amphora gets for itself."""
    if subject.tree.is_file("/etc/octavia/amphora-agent.conf"):
        yield fail("/etc/octavia/amphora-agent.conf is in the image", "the controller gives each amphora its own")
    certificates = [path for path, _ in _files(subject, "/etc/octavia/certs", "/var/lib/octavia/certs")]
    if certificates:
        yield fail(f"certificates: {some(certificates)}", "the controller gives each amphora its own")


def instance_state(subject: Subject) -> Iterator[Finding]:
    """Look for signs that the image was booted."""
    state = [path for path, _ in _files(subject, "/var/lib/cloud")]
    if state:
        yield fail(f"cloud-init ran in this image: {some(state)}", "cloud-init clean --logs, or rm -r /var/lib/cloud/*")


def credentials(subject: Subject) -> Iterator[Finding]:
    """Look for passwords of mirrors; none is ever shown."""
    for path in _configuration(subject, _SOURCE_FILES, _SOURCE_DIRECTORIES):
        text = subject.tree.text(path)
        pattern = _APT_PASSWORD if "/auth.conf" in path else _DNF_PASSWORD
        if _CREDENTIALS.search(text) or pattern.search(text):
            yield fail(f"{path} holds a password for a mirror", "remove it")
    for path in ("/etc/apt/auth.conf", "/root/.netrc", "/root/.pypirc", "/root/.docker/config.json"):
        if subject.lines(path):
            yield fail(f"{path} may hold passwords", "remove it")
    if subject.tree.listdir("/etc/pki/consumer", "*.pem") or subject.tree.listdir("/etc/pki/entitlement", "*.pem"):
        yield fail("a RHEL subscription's certificates are in the image", "subscription-manager unregister, then clean")


def proxies(subject: Subject) -> Iterator[Finding]:
    """Look for proxy settings, which point every amphora at the build host's."""
    for path in _configuration(subject, _PROXY_FILES, _PROXY_DIRECTORIES):
        if _PROXY.search(subject.tree.text(path)):
            yield fail(f"{path} sets a proxy", "remove it: an amphora has none")


def _configuration(subject: Subject, files: tuple[str, ...], directories: tuple[str, ...]) -> list[str]:
    found = [path for path in files if subject.tree.is_file(path)]
    return found + [path for directory in directories for path in subject.drop_ins(directory, "*")]


def build_host(subject: Subject) -> Iterator[Finding]:
    """Look for this machine's name, and for certificate authorities that the distribution does not have."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]} - {
        "localhost",
        "amphora",
        "debian",
        "ubuntu",
        "fedora",
        "centos",
        "rocky",
        "localhost.localdomain",
    }
    for path in ("/etc/hostname", "/etc/hosts", "/etc/mailname", "/etc/machine-info"):
        words = set(re.split(r"[\s=]+", subject.tree.text(path)))
        if words & {name for name in names if name}:
            yield fail(f"{path} has the name of this host", "give the image a neutral name")
    authorities = [path for path, _ in _files(subject, *_CA_DIRECTORIES)]
    if authorities:
        # A company's own image may well have the company's.
        severity = warn if subject.expected.own_image else fail
        yield severity(
            f"certificate authorities of the build host: {some(authorities)}",
            "remove them, and update-ca-certificates",
        )


def traces(subject: Subject) -> Iterator[Finding]:
    """Look for what the build left lying about."""
    histories = [f"{home}/{name}" for home in _homes(subject) for name in _HISTORIES if subject.lines(f"{home}/{name}")]
    if histories:
        yield fail(f"histories: {some(histories)}", "remove them")
    logs = [path for path, _ in _files(subject, "/var/log")]
    if logs:
        yield warn(f"logs of the build: {some(logs)}", "empty them")
    temporary = [path for directory in ("/tmp", "/var/tmp") for path, _ in subject.tree.walk(directory)]  # noqa: S108
    if temporary:
        yield warn(f"temporary files: {some(temporary)}", "remove them")


def caches(subject: Subject) -> Iterator[Finding]:
    """Look for package lists and caches: outdated in the first amphora, and large."""
    lists = [p for p, _ in _files(subject, "/var/lib/apt/lists") if not p.endswith("/lock")]
    cached = [p for p, _ in _files(subject, "/var/cache/apt", "/var/cache/dnf", "/var/cache/libdnf5", "/var/cache/yum")]
    cached += [p for home in _homes(subject) for p, _ in _files(subject, f"{home}/.cache")]
    for what, paths in (("package lists", lists), ("caches", [p for p in cached if not p.endswith("/lock")])):
        if paths:
            yield warn(f"{what}: {some(paths)}", "remove them")


def setuid(subject: Subject) -> Iterator[Finding]:
    """Report setuid and setgid programs that no distribution is known to ship."""
    found, known = [], 0
    for directory in _PROGRAM_DIRECTORIES:
        for path, entry in subject.tree.walk(directory):
            if not entry.is_file or not entry.permissions & 0o6000:
                continue
            if path.rpartition("/")[2] in _SETUID and path.startswith("/usr/") and "/local/" not in path:
                known += 1
            else:
                found.append(path)
    if found:
        yield info(f"setuid or setgid, and not known from a distribution: {some(found)}")
    yield passed(f"{known} known setuid and setgid programs")


GROUP = "leaks"
CHECKS = (
    Check("leaks.identity", GROUP, "no machine's identity", identity),
    Check("leaks.access", GROUP, "no keys of people", access),
    Check("leaks.agent", GROUP, "no amphora's certificates", agent_secrets),
    Check("leaks.cloud-init", GROUP, "never booted", instance_state),
    Check("leaks.credentials", GROUP, "no mirror's passwords", credentials),
    Check("leaks.proxies", GROUP, "no proxies", proxies),
    Check("leaks.build-host", GROUP, "nothing of the build host", build_host),
    Check("leaks.traces", GROUP, "no histories, logs, temporary files", traces),
    Check("leaks.caches", GROUP, "no package lists and caches", caches),
    # Walks through all programs and modules, for a remark.
    Check("leaks.setuid", GROUP, "no unknown setuid programs", setuid, in_build=False),
)
