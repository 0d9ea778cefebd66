"""Restarting a guest: what is asked of a monitor, and what counts as being there again.

The monitor, the observer and the agent are fakes here, for what a real guest does not do on demand. tests/boot
restarts a real qemu and, marked slow, a real image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from amphora_mkimage.boot import restart
from amphora_mkimage.boot.api import AgentError, Client
from amphora_mkimage.boot.qmp import Monitor
from amphora_mkimage.boot.report import GuestReport
from amphora_mkimage.boot.restart import Power

MAC = "52:54:00:12:34:57"
FACTS = {"event": "facts", "failed": []}
NETWORK = {"event": "network", "cards": [], "routes": {}, "namespace": [MAC]}
END = {"event": "end"}


class FakeMonitor:
    """Remembers what it was told; the guest is off for a moment after the reset was asked for."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.states = ["shutdown", "shutdown", "prelaunch"]

    def execute(self, command: str, **arguments: object) -> Any:
        if command == "query-status":
            return {"status": self.states.pop(0)}
        self.told.append(" ".join([command, *map(str, arguments.values())]))
        return {}


class FakeObserver:
    """A guest that comes up again, or does not."""

    def __init__(self, *events: dict[str, Any], off: bool = True) -> None:
        self.events, self.off = events, off
        self.report = GuestReport()

    def begin_again(self) -> GuestReport:
        return self.report

    def switched_off(self) -> bool:
        return self.off

    def follow(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        if seconds is None:
            for event in self.events:
                self.report.take(json.dumps(event))
        return done()

    def in_background(self, work: Callable[[], str]) -> str:
        return work()


class FakeClient:
    """An agent that answers at the nth time."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    def version(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionRefusedError("refused")
        return "1.0"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(restart, "_TICK", 0.001)


def do(power: Power, observer: FakeObserver, client: FakeClient | None = None) -> list[str]:
    monitor = FakeMonitor()
    found = restart.restart(power, cast(Monitor, monitor), observer, cast(Client, client or FakeClient()), MAC)
    assert found == "API 1.0"
    return monitor.told


def test_the_power_button() -> None:
    assert do(Power.BUTTON, FakeObserver(FACTS, NETWORK, END), FakeClient(2)) == [
        "set-action pause",
        "system_powerdown",
        "system_reset",
        "cont",
        "set-action poweroff",
    ]


def test_the_reset() -> None:
    assert do(Power.RESET, FakeObserver(FACTS, NETWORK, END)) == ["system_reset"]


FAILED = {"event": "facts", "failed": [{"unit": "amphora-netns.service", "journal": ["x", "no such device"]}]}
WAITING = {"event": "waiting", "jobs": ["networking.service"]}


@pytest.mark.parametrize(
    ("observer", "error"),
    [
        (FakeObserver(off=False), "did not switch itself off within 240 s of the power button"),
        (FakeObserver(), "the guest did not come up again"),
        (FakeObserver(WAITING), "did not come up again: networking.service"),
        (FakeObserver(FAILED, NETWORK, END), "amphora-netns.service failed: no such device"),
        (FakeObserver(FACTS, END), "is not in the namespace amphora-haproxy any more"),
        (FakeObserver(FACTS, {**NETWORK, "namespace": ["52:54:00:12:34:56"]}, END), MAC),
    ],
)
def test_what_is_not_there_again(observer: FakeObserver, error: str) -> None:
    with pytest.raises(AgentError, match=error):
        do(Power.BUTTON, observer)


def test_an_agent_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "AGENT_SECONDS", 0.01)
    with pytest.raises(ConnectionRefusedError):
        do(Power.RESET, FakeObserver(FACTS, NETWORK, END), FakeClient(10**6))
