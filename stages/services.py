"""Which services start by themselves.

HAProxy waits for the agent's unit. Timers that would fetch packages are off: an amphora resolves no names, is
replaced and never updated in place. GRUB's record of a successful boot is read by nobody when there is no menu. The
rest costs seconds of each boot for nothing: there is no LVM whose snapshots e2scrub could check, the agent and not
ipvsadm's service sets up IPVS, and no program in the image is of another kind than ELF.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat

_DISABLED = ("haproxy.service", "grub-common.service")
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "ipvsadm.service",
    "systemd-binfmt.service",
    # Where the management network has IPv6 only it waits minutes for IPv4 (https://bugs.launchpad.net/bugs/1909976).
    # Nothing needs it: settings come from the config drive, and the agent listens on whatever comes up.
    "systemd-networkd-wait-online.service",
)


def applies(request: Request) -> bool:
    """Debian's family."""
    return not is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Disable and mask."""
    guest.command(["systemctl", "disable", *_DISABLED])
    guest.command(["systemctl", "mask", *_MASKED])
