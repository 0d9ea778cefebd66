"""Who may write what decides over an amphora: nobody but root."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from amphora_mkimage.verify.result import Check, Finding, fail, some
from amphora_mkimage.verify.subject import Subject

_EVERYBODY = stat.S_IWOTH
#: With all below it: configuration, and units.
_TREES = (
    "/etc",
    "/var/lib/octavia",
    "/usr/lib/systemd/system",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/boot/grub",
    "/boot/grub2",
)
#: By themselves.
_DIRECTORIES = (
    "/",
    "/boot",
    "/opt",
    "/root",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/var",
    "/var/lib",
)
_OF_AGENT = ("/etc/octavia", "/etc/octavia/certs", "/var/lib/octavia", "/etc/haproxy", "/etc/keepalived")


def everybody(subject: Subject) -> Iterator[Finding]:
    """Look for what everybody in the amphora can change or replace."""
    found = [path for path in _DIRECTORIES if _open(subject, path)]
    for directory in _TREES:
        found += [directory] if _open(subject, directory) else []
        below = subject.tree.walk(directory) if subject.tree.is_directory(directory) else ()
        found += [p for p, e in below if not e.is_link and (e.is_file or e.is_directory) and e.permissions & _EVERYBODY]
    if found:
        yield fail(f"everybody in the amphora can write {some(found)}", "chmod o-w")


def _open(subject: Subject, path: str) -> bool:
    entry = subject.tree.entry(path)
    return entry is not None and entry.is_directory and entry.permissions & _EVERYBODY != 0


def owners(subject: Subject) -> Iterator[Finding]:
    """Check whose the agent's directories are."""
    for path in _OF_AGENT:
        entry = subject.tree.entry(path)
        if entry is not None and entry.uid != 0:
            yield fail(f"{path} belongs to user {entry.uid}, who can replace the agent's configuration", "chown root")


GROUP = "agent"
CHECKS = (
    Check("agent.writable", GROUP, "only root changes what decides", everybody),
    Check("agent.owners", GROUP, "the agent's directories are root's", owners),
)
