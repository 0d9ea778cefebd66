"""What the boot loader and the kernel are told, on Red Hat's family.

Serial console and screen both, because clouds show either; no menu to wait for. grub2-mkconfig writes the kernel into
grub.cfg itself: no kernel will ever be added, and what an amphora boots can then be read in one place. The entry of
the Boot Loader Specification, which grubby and kernel-install keep, says the same.
"""

from __future__ import annotations

import re

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import FILES, install, put

_DEFAULTS = "etc/default/grub"
_PINNING = "etc/default/grub.d/60-amphora-cpu-pinning.cfg"
_FIPS = "etc/default/grub.d/70-amphora-fips.cfg"
_ROOT = "root=LABEL=cloudimg-rootfs ro"


def applies(request: Request) -> bool:
    """Red Hat's family."""
    return is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Install fstab and the defaults, and make the entries of /boot/loader agree with them."""
    install(guest, "etc/fstab")
    install(guest, _DEFAULTS)
    for file in _additions(request):
        guest.write_append(f"/{_DEFAULTS}", (FILES / file).read_bytes())
    options = f"{_ROOT} {kernel_options(request)}"
    put(guest, "/etc/kernel/cmdline", f"{options}\n".encode())  # for a kernel that an operator adds (kernel-install(8))
    for path in guest.glob_expand("/boot/loader/entries/*.conf"):
        entry = guest.read_file(path).decode()
        guest.write(path, _rewritten(entry, options).encode())
    guest.mkdir_p("/boot/efi")


def kernel_options(request: Request) -> str:
    """Give the kernel command line, without its root."""
    files = (_DEFAULTS, *_additions(request))
    return " ".join(_options(file) for file in files)


def _additions(request: Request) -> list[str]:
    """Give the files that add to the defaults, in the order of their numbers."""
    wanted = {_PINNING: request.cpu_pinning, _FIPS: request.fips}
    return [file for file, wants in wanted.items() if wants]


def _options(file: str) -> str:
    text = (FILES / file).read_text(encoding="ascii")
    match = re.search(r'^GRUB_CMDLINE_LINUX="(?:\$GRUB_CMDLINE_LINUX )?(.*)"$', text, re.MULTILINE)
    assert match is not None
    return match[1]


def _rewritten(entry: str, options: str) -> str:
    """Let an entry name the files below the root, where /boot is now, and our options."""
    entry = re.sub(r"^options .*$", f"options {options}", entry, flags=re.MULTILINE)
    return re.sub(
        r"^(linux|initrd) (?:/boot)?(/\S+).*$", lambda match: f"{match[1]} /boot{match[2]}", entry, flags=re.MULTILINE
    )
