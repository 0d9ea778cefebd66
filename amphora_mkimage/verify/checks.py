"""The table of checks, and how they are run."""

from __future__ import annotations

from collections.abc import Iterator

from amphora_mkimage.verify import (
    agent_checks,
    boot_checks,
    configuration_checks,
    disk_checks,
    hardware_checks,
    kernel_checks,
    leak_checks,
    log_checks,
    network_checks,
    override_checks,
    package_checks,
    reboot_checks,
    service_checks,
    start_checks,
    write_checks,
)
from amphora_mkimage.verify.result import NO_DISK, Check, Finding, Outcome, fail, not_applicable
from amphora_mkimage.verify.subject import Subject
from amphora_mkimage.verify.tree import TreeError

CHECKS: tuple[Check, ...] = (
    *disk_checks.CHECKS,
    *boot_checks.CHECKS,
    *start_checks.CHECKS,
    *kernel_checks.CHECKS,
    *hardware_checks.CHECKS,
    *package_checks.CHECKS,
    *configuration_checks.CHECKS,
    *network_checks.CHECKS,
    *service_checks.CHECKS,
    *override_checks.CHECKS,
    *log_checks.CHECKS,
    *agent_checks.CHECKS,
    *reboot_checks.CHECKS,
    *write_checks.CHECKS,
    *leak_checks.CHECKS,
)


def run_all(subject: Subject) -> list[Outcome]:
    """Run every check; none stops another."""
    return [Outcome(check, tuple(_run(check, subject))) for check in CHECKS]


def run_cheap(subject: Subject) -> list[Outcome]:
    """Run the checks that each build runs on its own tree."""
    return [Outcome(check, tuple(_run(check, subject))) for check in CHECKS if check.cheap]


def _run(check: Check, subject: Subject) -> Iterator[Finding]:
    reason = _hindrance(check, subject)
    if reason:
        yield not_applicable(reason)
        return
    try:
        yield from check.function(subject)
    except TreeError as error:
        # What cannot be read cannot be right; the other checks go on.
        yield fail(f"could not be checked: {error.what}")


def _hindrance(check: Check, subject: Subject) -> str:
    """Tell why a check has nothing to look at, or ""."""
    if check.disk and not subject.image.is_disk:
        return NO_DISK
    if subject.image.refusal and (check.disk or check.guest or check.group == "disk"):
        return "not looked at"
    if check.guest and subject.root is None:
        return "there is not exactly one operating system"
    return ""
