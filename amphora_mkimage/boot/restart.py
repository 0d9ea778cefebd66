"""Start the guest anew, as a hypervisor that was rebooted or has crashed does, and see what is there again.

Octavia does not notice when an amphora comes back without its virtual address: the agent runs and heartbeats arrive, so
there is no failover (https://bugs.launchpad.net/octavia/+bug/2027995).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from amphora_mkimage.boot.api import AgentError, Client
from amphora_mkimage.boot.qmp import Monitor
from amphora_mkimage.boot.report import GuestReport

#: How long the guest may take to switch itself off. Nova waits 60 s (shutdown_timeout); emulation is slower.
OFF_SECONDS = 240.0
#: How long the agent may take to answer once the system is up.
AGENT_SECONDS = 240.0
_POLL_SECONDS, _TICK = 1.0, 0.1


class Power(StrEnum):
    """What happens to the guest."""

    BUTTON = "power button"  #: it is asked to switch itself off, and switched on again
    RESET = "reset"  #: at once, without a word


class Observer(Protocol):
    """What this needs of a session."""

    def begin_again(self) -> GuestReport:
        """Forget the boot so far; the report of the next one, to which all is added that the guest says from now on."""

    def switched_off(self) -> bool:
        """Whether the guest has switched itself off."""

    def follow(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Observe until something is done; False when the guest died, or the time is over (that of a boot for None)."""

    def in_background(self, work: Callable[[], str]) -> str:
        """Do something that takes long while the machine is being observed."""


def restart(power: Power, monitor: Monitor, observer: Observer, client: Client, mac: str) -> str:
    """Start the guest anew, and wait until all is there again but what passes through the virtual address.

    :param client: of the agent
    :param mac: of the virtual address' card, which must be in the agent's network namespace
    :returns: what was found
    :raises AgentError: something is not there again
    :raises MkimageError: the guest died
    """
    if power is Power.BUTTON:
        # Else qemu would end with the guest.
        monitor.execute("set-action", shutdown="pause")
        monitor.execute("system_powerdown")
        if not observer.follow(observer.switched_off, OFF_SECONDS):
            raise AgentError(f"the guest did not switch itself off within {OFF_SECONDS:.0f} s of the power button")
    report = observer.begin_again()
    monitor.execute("system_reset")
    if power is Power.BUTTON:
        # The reset is done a moment later, and before it there is nothing to go on with.
        while monitor.execute("query-status")["status"] == "shutdown":
            time.sleep(_TICK)
        monitor.execute("cont")
        monitor.execute("set-action", shutdown="poweroff")
    if not observer.follow(lambda: report.complete):
        raise AgentError("the guest did not come up again" + (f": {', '.join(report.jobs)}" if report.jobs else ""))
    _judge(report, mac)
    return f"API {observer.in_background(lambda: _version(client))}"


def _judge(report: GuestReport, mac: str) -> None:
    """Look at what the guest says of itself."""
    failed = report.facts.failed if report.facts else ()
    if failed:
        raise AgentError("; ".join(f"{unit.unit} failed: {' '.join(unit.journal[-1:])}" for unit in failed))
    if report.network is None or mac not in report.network.namespace:
        raise AgentError(f"the card of the virtual address ({mac}) is not in the namespace amphora-haproxy any more")


def _version(client: Client) -> str:
    """Ask until the agent answers."""
    end = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return client.version()
        except (OSError, AgentError):
            if time.monotonic() > end:
                raise
        time.sleep(_POLL_SECONDS)
