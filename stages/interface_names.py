"""Network cards have one name each, which the agent finds again after a reboot.

Agents before octavia 19 pair lines of ``ip link`` in amphora-netns.service. With alternative names (systemd.link(5))
the pairs are wrong, and the card of the virtual address stays outside of the agent's namespace. Octavia does not
notice, as the agent answers.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Take the policy out of systemd's default for all cards."""
    install(guest, "etc/systemd/network/99-default.link.d/50-amphora.conf")
