"""Arguments of the kernel that a user adds to those of an amphora: checked, because a shell reads them in the image.

GRUB's defaults file is a script that update-grub(8) sources, and what it writes is a script of GRUB's own language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from amphora_mkimage.errors import BadValueError

#: Nothing that either language knows, and no blanks: a value with them would need quotes.
_ARGUMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:/=@%+-]*")
#: What diskimage-builder's element "bootloader" has where DIB_BOOTLOADER_DEFAULT_CMDLINE says nothing.
DEFAULTS = ("nofb", "nomodeset", "gfxpayload=text")
#: With these no amphora starts, or it is not found by its cloud; by the argument's name, what to do instead.
_TAKEN = {
    "root": "the image's root filesystem is the root",
    "ro": "the image's root filesystem is the root",
    "rw": "the image's root filesystem is the root",
    "init": "systemd starts the amphora",
    "rdinit": "systemd starts the amphora",
    "single": "systemd starts the amphora",
    "emergency": "systemd starts the amphora",
    "rescue": "systemd starts the amphora",
    "systemd.unit": "systemd starts the amphora",
    "rd.break": "systemd starts the amphora",
    "cloud-init": "an amphora gets its configuration by cloud-init",
    "ds": "use CLOUD_INIT_DATASOURCES",
    "ci.ds": "use CLOUD_INIT_DATASOURCES",
    "network-config": "an amphora gets its configuration by cloud-init",
    "fips": "use -y",
}


def check(arguments: Sequence[str], origin: str) -> tuple[str, ...]:
    """Return arguments when they can be used.

    :param origin: the flag or variable that gives them
    :raises BadValueError: one is no argument, or takes from an amphora what it needs
    """
    for argument in arguments:
        if not _ARGUMENT.fullmatch(str(argument)):  # argparse makes a list of "--"
            raise BadValueError(
                f"{origin}: {argument!r} is not an argument of the kernel",
                "letters, digits and _.,:/=@%+- only; give each argument by itself",
            )
        name = argument.partition("=")[0]
        if name in _TAKEN:
            raise BadValueError(f"{origin}: {argument!r} cannot be added to an amphora", _TAKEN[name])
    return tuple(arguments)


def changed(words: Sequence[str], instead: Sequence[str] | None, added: Sequence[str]) -> list[str]:
    """Return a command line with other defaults, and arguments added.

    :param words: those that the image has
    :param instead: what takes the place of :data:`DEFAULTS`, None to keep these
    """
    kept = list(words) if instead is None else [word for word in words if word not in DEFAULTS]
    return [*kept, *(instead or ()), *added]
