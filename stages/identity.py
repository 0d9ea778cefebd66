"""A host name and locale of its own, until cloud-init gives the real name.

cloud-init writes /etc/hostname and /etc/hosts at the first boot. The bootstrap copies the build host's name into the
tree; it must not stay there.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Install hostname, hosts and locale."""
    for path in ("etc/hostname", "etc/hosts", "etc/locale.conf" if is_redhat(request) else "etc/default/locale"):
        install(guest, path)
