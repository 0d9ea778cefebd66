"""What the bootloader and the kernel are told, and which filesystem is the root.

Serial console and screen both, because clouds show either; no menu to wait for. The serial port is another on each kind
of machine. The disk step runs the image's own update-grub on these files.
"""

from __future__ import annotations

from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import FILES, install


def applies(request: Request) -> bool:
    """Debian's family."""
    return not is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Install fstab and GRUB's defaults, in place of what a published image was set up with."""
    architecture = ARCHITECTURES[request.arch]
    for path in guest.glob_expand("/etc/default/grub.d/*cloudimg*"):
        guest.rm_f(path)
    install(guest, "etc/fstab")
    install(guest, "etc/default/grub.d/50-amphora.cfg")
    install(guest, f"etc/default/grub.d/51-amphora-{architecture.console}.cfg")
    if architecture.efi:
        guest.write_append("/etc/fstab", (FILES / "etc/fstab.esp").read_bytes())
        guest.mkdir_p("/boot/efi")
