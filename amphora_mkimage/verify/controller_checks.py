"""What controllers write, and what the image makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage import controllers
from amphora_mkimage.verify import agent_python
from amphora_mkimage.verify.result import Finding, passed, warn
from amphora_mkimage.verify.subject import Subject

#: keepalived's default for script_user (keepalived.conf(5)).
_SCRIPT_USER = "keepalived_script"


def refusals(subject: Subject, haproxy: str) -> Iterator[Finding]:
    """Report what this HAProxy refuses of its controllers: those of the manifest, else of the agent's own release.

    :param haproxy: version of the package
    """
    octavia = subject.expected.octavia or agent_python.octavia_release(subject)
    upstream = re.sub(r"^\d+:", "", haproxy)
    refused = controllers.table().verdict(octavia, upstream)
    if refused:
        yield warn(
            f"HAProxy {upstream} refuses what {controllers.table().named(octavia)} writes for {', '.join(refused)}",
            "another release of the base, or newer controllers: docs/controllers.md",
        )
    record = subject.expected.configurations
    if record and record.refused:
        names = ", ".join(record.refused)
        yield warn(f"in the build, says the manifest, it refused what its agent's release writes for {names}")
    elif record:
        yield passed(f"{haproxy}; in the build, says the manifest, it took all {record.tried} configurations")
    else:
        yield passed(haproxy)


def keepalived_account(subject: Subject) -> Iterator[Finding]:
    """Report the account to which keepalived would hand Octavia's check scripts, which it cannot run."""
    if any(line.startswith(f"{_SCRIPT_USER}:") for line in subject.lines("/etc/passwd")):
        yield warn(
            f"/etc/passwd has {_SCRIPT_USER}: keepalived runs the check scripts as it, and those of UDP listeners fail",
            "remove the account",
        )
