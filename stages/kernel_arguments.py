"""Arguments of the kernel that the user asked for, behind those that every amphora has.

It comes after the stages that write GRUB's defaults: "boot" of Debian's family, "grub2" of Red Hat's.
"""

from __future__ import annotations

import re

from amphora_mkimage import kernel_arguments
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import put

#: Where a defaults file says what the kernel is told; additions of ours name the variable again.
_LINE = re.compile(r'^GRUB_CMDLINE_LINUX="(?!\$)(.*)"$', re.MULTILINE)
_ADDED = "/etc/default/grub.d/80-amphora-kernel-arguments.cfg"


def applies(request: Request) -> bool:
    """Only with --kernel-arg or DIB_BOOTLOADER_DEFAULT_CMDLINE."""
    return bool(request.kernel_args) or request.default_cmdline is not None


def run(guest: Guest, request: Request) -> None:
    """Change GRUB's defaults, and on Red Hat's family what else has the command line."""
    added = [*(request.default_cmdline or ()), *request.kernel_args]
    addition = f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {" ".join(added)}"\n'.encode()
    if not is_redhat(request):
        for path in guest.glob_expand("/etc/default/grub.d/51-amphora-*.cfg"):
            _without_defaults(guest, path, request)
        put(guest, _ADDED, addition)
        return
    _without_defaults(guest, "/etc/default/grub", request)
    guest.write_append("/etc/default/grub", addition)
    line = guest.read_file("/etc/kernel/cmdline").decode()
    put(guest, "/etc/kernel/cmdline", f"{_changed(line, request)}\n".encode())
    for path in guest.glob_expand("/boot/loader/entries/*.conf"):
        entry = guest.read_file(path).decode()
        entry = re.sub(r"^options (.*)$", lambda match: f"options {_changed(match[1], request)}", entry, flags=re.M)
        guest.write(path, entry.encode())


def _without_defaults(guest: Guest, path: str, request: Request) -> None:
    """Take diskimage-builder's defaults out of a defaults file, where others take their place."""
    if request.default_cmdline is not None:
        text = guest.read_file(path).decode()
        guest.write(path, _LINE.sub(lambda match: f'GRUB_CMDLINE_LINUX="{_kept(match[1])}"', text).encode())


def _kept(line: str) -> str:
    return " ".join(kernel_arguments.changed(line.split(), (), ()))


def _changed(line: str, request: Request) -> str:
    return " ".join(kernel_arguments.changed(line.split(), request.default_cmdline, request.kernel_args))
