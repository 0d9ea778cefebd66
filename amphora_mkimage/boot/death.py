"""How a boot ends early, recognised from what appears on the serial console."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Death:
    """Why the guest will never be running.

    :param what: one line that says what happened
    :param remedy: one line that says what to do, or ""
    """

    what: str
    remedy: str = ""


_NO_LOADER = "give the image a boot loader for this firmware, or boot it with the other one (with or without --uefi)"
_NO_PREP = "give the image a PReP partition with a boot loader"
_ROOT = (
    "root= on the kernel's command line must name the root filesystem, and the initramfs have the drivers of its disk"
)
_GRUB = "the boot loader's prefix, its modules and grub.cfg must agree with the disk's layout"

#: What is printed on a line of its own, or on the last, unfinished one (prompts). Only messages after which nothing
#: more can come are here: each of them ends the boot at once.
_SIGNS: tuple[tuple[re.Pattern[str], Death], ...] = (
    # SeaBIOS, src/boot.c: after the last entry of the boot order
    (re.compile(r"No bootable device\."), Death("the BIOS found no boot loader on the disk", _NO_LOADER)),
    # edk2, BdsDxe: the boot options are used up, so the built-in shell or the network is next
    (
        re.compile(r"UEFI Interactive Shell|BdsDxe: No bootable option or device was found|>>Start PXE over"),
        Death("the UEFI firmware found no boot loader on the disk", _NO_LOADER),
    ),
    # SLOF, slof/fs/boot.fs: there is one disk only to try
    (re.compile(r"E3407: Load failed"), Death("Open Firmware found no boot loader on the disk", _NO_PREP)),
    (re.compile(r"grub rescue>"), Death("GRUB stopped at its rescue prompt: it does not find its modules", _GRUB)),
    (re.compile(r"(?:^|\s)grub> ?$"), Death("GRUB stopped at its prompt: it has no usable grub.cfg", _GRUB)),
    (re.compile(r"Kernel panic - not syncing: (?P<why>.*)"), Death("the kernel panicked")),
    # initramfs-tools: panic() in scripts/functions; the prompt is busybox's
    (
        re.compile(r"^\(initramfs\) ?$|Dropping to a shell!"),
        Death("the initramfs gave up and opened a shell: it did not find the root filesystem", _ROOT),
    ),
    # dracut: emergency_shell() in dracut-lib.sh
    (
        re.compile(r"Entering emergency mode\. Exit the shell to continue"),
        Death("dracut's initramfs gave up and opened a shell: it did not find the root filesystem", _ROOT),
    ),
    (
        re.compile(r"You are in (?:emergency|rescue) mode|Give root password for maintenance"),
        Death("systemd went into emergency mode", "look for the unit that failed above it on the console"),
    ),
    (
        re.compile(r"Cannot open access to console, the root account is locked"),
        Death("systemd went into emergency mode", "look for the unit that failed above it on the console"),
    ),
    # systemd, src/core/crash-handler.c: PID 1 crashed
    (re.compile(r"systemd\[1\]: Freezing execution"), Death("systemd crashed")),
    (re.compile(r"reboot: System halted"), Death("the guest halted itself")),
)

_LOGIN = re.compile(r"(?:^|\s)login: ?$")


def find(lines: Sequence[str], pending: str = "") -> Death | None:
    """Look for the end of the boot in what is new on the console, without control characters.

    :param lines: completed lines
    :param pending: the unfinished last line
    """
    for number, line in enumerate([*lines, pending]):
        for pattern, death in _SIGNS:
            match = pattern.search(line)
            if match is None:
                continue
            why = match.groupdict().get("why")
            if why is None:
                return death
            if number < len(lines):  # the reason of an unfinished line is unfinished too
                return Death(f"{death.what}: {why.strip()}", death.remedy)
    return None


def is_login(line: str) -> bool:
    """Is this the prompt of a getty?"""
    return _LOGIN.search(line) is not None
