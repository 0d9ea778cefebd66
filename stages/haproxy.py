"""HAProxy, as the agent expects to find it.

The distribution's service stays disabled, because the agent writes a unit of its own for each load balancer; it reads
the group under which the control socket is shared and the script of the PING health monitor from fixed paths
(Octavia's elements/haproxy-octavia).
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Install the agent's side files and directories."""
    guest.mkdir_p("/var/lib/haproxy")
    guest.chmod(0o755, "/var/lib/haproxy")
    install(guest, "var/lib/octavia/haproxy-default-user-group.conf")
    install(guest, "var/lib/octavia/ping-wrapper.sh", 0o755)
    if not guest.exists("/etc/rsyslog.d/49-haproxy.conf"):
        install(guest, "etc/rsyslog.d/49-haproxy.conf")
