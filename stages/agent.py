"""The amphora agent's surroundings: units, scripts, directories, its log.

The agent itself is in a virtual environment, or in the distribution's Python, before the stages run. Paths and names
are those that Octavia's controller, its user data and the agent's own code have fixed
(elements/amphora-agent and elements/certs-ramfs in its repository).
"""

from __future__ import annotations

import re

from amphora_mkimage.agent.install import COMMANDS, VENV
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import FILES, install, put

_UNITS = ("amphora-agent.service", "certs-ramfs.service", "prometheus-proxy.service")
_UNIT_DIRECTORY = "usr/lib/systemd/system"
_SCRIPTS = ("certfs-ramfs", "lvs-masquerade.sh")
#: /etc/octavia/certs holds the agent's own key, which cloud-init writes for root only.
_DIRECTORIES = ("/etc/octavia", "/etc/octavia/certs", "/var/lib/octavia")
_PROFILE = "/etc/apparmor.d/usr.sbin.rsyslogd"


def applies(request: Request) -> bool:
    """Unless the agent was left out."""
    return request.agent


def run(guest: Guest, request: Request) -> None:
    """Install and enable."""
    for path in _DIRECTORIES:
        guest.mkdir_p(path)
        guest.chown(0, 0, path)  # a package's are another user's, and the agent is root
        guest.chmod(0o755, path)
    for name in COMMANDS:
        guest.ln_sf(f"{'/usr' if request.agent_packages else VENV}/bin/{name}", f"/usr/local/bin/{name}")
    for name in _SCRIPTS:
        install(guest, f"usr/local/bin/{name}", 0o755)
    guest.ln_sf("lvs-masquerade.sh", "/usr/local/bin/udp-masquerade.sh")  # what agents until Victoria call
    for name in _UNITS:
        # A package may have a unit of the same name: what is under /etc goes before it (systemd.unit(5)).
        directory = "/etc/systemd/system" if request.agent_packages else f"/{_UNIT_DIRECTORY}"
        put(guest, f"{directory}/{name}", (FILES / _UNIT_DIRECTORY / name).read_bytes())
    guest.command(["systemctl", "enable", *_UNITS])
    install(guest, "etc/logrotate.d/amphora-agent")
    install(guest, "etc/rsyslog.d/55-octavia-socket.conf")
    if guest.is_file(_PROFILE):
        _confine(guest)


def _confine(guest: Guest) -> None:
    """Let AppArmor's profile of rsyslog have the agent's socket.

    HAProxy reaches it from another network namespace, where the kernel sees a path without its root: the profile must
    attach such paths (https://bugs.launchpad.net/bugs/1373070).
    """
    install(guest, "etc/apparmor.d/rsyslog.d/octavia")
    profile = guest.read_file(_PROFILE).decode()
    guest.write(_PROFILE, re.sub(r"^([^#\n]*/usr/sbin/rsyslogd)\b([^{\n]*)\{", _attached, profile, flags=re.M).encode())


def _attached(head: re.Match[str]) -> str:
    flags = re.search(r"flags=\(([^)]*)\)", head[2])
    words = re.split(r"[\s,]+", flags[1].strip()) if flags else []
    if "attach_disconnected" not in words:
        words.append("attach_disconnected")
    return f"{head[1]} flags=({','.join(word for word in words if word)}) {{"
