"""Logs go to rsyslog, which forwards them when the controller says so; what stays here is bounded.

The journal keeps some in memory. logrotate rotates the files as soon as they are large, and is called often enough that
a load balancer with thousands of requests a second does not fill the smallest disk: distributions rotate once a day,
whatever the size.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import FILES, install, put

_LOGROTATE = "/etc/logrotate.conf"


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Bound the journal and the files."""
    install(guest, "etc/systemd/journald.conf.d/50-amphora.conf")
    install(guest, "etc/systemd/system/logrotate.timer.d/50-amphora.conf")
    install(guest, "etc/systemd/system/logrotate.service.d/50-amphora.conf")
    # At the top: what stands before "include" is the default of all that is included (logrotate(8)).
    ours = (FILES / "etc/logrotate.amphora").read_bytes()
    theirs = guest.read_file(_LOGROTATE) if guest.exists(_LOGROTATE) else b"include /etc/logrotate.d\n"
    put(guest, _LOGROTATE, ours + b"\n" + theirs.removeprefix(ours + b"\n"))
