"""Logs go to rsyslog, which forwards them when the controller says so; the journal keeps a bounded copy in memory."""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Bound the journal."""
    install(guest, "etc/systemd/journald.conf.d/50-amphora.conf")
