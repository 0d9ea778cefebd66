"""FIPS mode: only the algorithms and modules that FIPS 140 allows (-y).

The policy of the cryptographic libraries is set here, the kernel is told by the stage "grub2", and the initramfs was
made with dracut's module that checks the kernel before anything else (update-crypto-policies(8), Octavia's
elements/amphora-fips).
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request


def applies(request: Request) -> bool:
    """Only with -y; which bases can is checked with the request."""
    return request.fips


def run(guest: Guest, request: Request) -> None:
    """Switch the policy."""
    guest.command(["update-crypto-policies", "--no-reload", "--set", "FIPS"])
