"""The distribution's agent: its units make way for ours, and what fails in it goes.

Our unit has the name that the controller's user data restarts, runs as root and reads the file that the controller
sends: Debian's unit has another name, Ubuntu's runs as a user that may configure no network
(https://bugs.launchpad.net/bugs/1831642). Debian's namespace unit fails at boot, where the agent has plugged nothing
yet; the agent writes one of its own when it has.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request

_UNIT_DIRECTORY = "/usr/lib/systemd/system"
#: Debian's, and RDO's, and of a package that Debian's depends on.
_UNITS = (
    "octavia-agent.service",
    "octavia-agent-certs-ramfs.service",
    "octavia-agent-netns.service",
    "octavia-amphora-agent.service",
    "octavia-prometheus-proxy.service",
    "pollinate.service",  # comes along, and waits at every boot for a server on the internet
)
_REMOVED = (
    "/etc/sysctl.d/octavia-agent-sysctl.conf",  # quoted values and a key that is no more: systemd-sysctl fails
    "/etc/octavia/octavia.conf",  # the control plane's settings, made at the installation; no amphora reads them
    "/etc/logrotate.d/octavia-agent",  # the log that ours has, too: logrotate fails
)
#: By this name Debian's agent calls its own version, which knows no SR-IOV and cannot be repeated.
_MASQUERADE = "octavia-agent-lvs-masquerade"


def applies(request: Request) -> bool:
    """With -p."""
    return request.agent_packages


def run(guest: Guest, request: Request) -> None:
    """Disable, remove and replace."""
    units = [unit for unit in _UNITS if guest.exists(f"{_UNIT_DIRECTORY}/{unit}")]
    if units:
        guest.command(["systemctl", "disable", *units])
        guest.command(["systemctl", "mask", *units])
    for path in _REMOVED:
        guest.rm_f(path)
    if guest.exists(f"/usr/bin/{_MASQUERADE}"):
        guest.ln_sf("lvs-masquerade.sh", f"/usr/local/bin/{_MASQUERADE}")
