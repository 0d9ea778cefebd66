"""A real qemu whose guest is restarted: a boot sector that reports, and obeys the power button."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from test_boot import COM1, COM2, HANG, SWITCH_OFF, boot_sector, pytestmark  # noqa: F401

from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.boot.api import AgentError, Client
from amphora_mkimage.boot.hardware import HARDWARE
from amphora_mkimage.boot.machine import Drawing, Machine
from amphora_mkimage.boot.management import NETWORKS, Kind
from amphora_mkimage.boot.restart import Power
from amphora_mkimage.boot.session import Session
from amphora_mkimage.console import Console

MAC = "52:54:00:12:34:57"
#: Enables the power button (PM1 of qemu's "pc" machine), waits for it, and switches off.
OBEY = b"\xba\x02\x06\xb8\x00\x01\xef\xb2\x00" + b"\xed\xf6\xc4\x01\x74\xfa" + SWITCH_OFF
REPORTS = [
    {"event": "started", "agent": "x.service"},
    {"event": "facts"},
    {"event": "network", "namespace": [MAC]},
    {"event": "end"},
]


class Agent:
    """An agent that answers; the restart asks nothing else of it."""

    def version(self) -> str:
        return "1.0"


def session(tmp_path: Path, then: bytes) -> Session:
    text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in REPORTS)
    image = boot_sector(tmp_path / "disk", (COM1, "login: "), (COM2, text), then=then)
    (tmp_path / "drive").write_bytes(bytes(1 << 20))
    drawing = Drawing(
        image=image,
        image_format="raw",
        drive=tmp_path / "drive",
        directory=tmp_path,
        accelerator=Accelerator(False, "").qemu_arguments(),
        memory=64,
        firmware=None,
        http_port=80,
        hardware=HARDWARE["amd64"],
    )
    console = Console()
    return Session(Machine(drawing, console), NETWORKS[Kind.USER], 60.0, console, stream=False)


@pytest.mark.parametrize(("power", "then"), [(Power.BUTTON, OBEY), (Power.RESET, HANG)])
def test_a_guest_that_comes_up_again(
    tmp_path: Path, power: Power, then: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SeaBIOS resets the machine by itself after a restart, and more often than this: that is not a loop.
    monkeypatch.setattr("amphora_mkimage.boot.session.RESETS", 0)
    observed = session(tmp_path, then)
    outcome = observed.outcome
    try:
        # Each boot has a report of its own, whatever the one before said.
        for restarts in range(3):
            if restarts:
                assert observed.restart(power, cast(Client, Agent()), MAC) == "API 1.0"
            assert observed.follow(lambda: outcome.latest.complete)
            assert (len(outcome.restarts), outcome.death) == (restarts, None)
        assert not observed.machine.ended()
        assert observed.machine.monitor.execute("query-status")["status"] == "running"
    finally:
        observed.machine.kill()


def test_a_guest_that_does_not_obey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amphora_mkimage.boot.restart.OFF_SECONDS", 1.0)
    observed = session(tmp_path, HANG)
    try:
        assert observed.follow(lambda: observed.outcome.report.complete)
        with pytest.raises(AgentError, match="power button"):
            observed.restart(Power.BUTTON, cast(Client, Agent()), MAC)
    finally:
        observed.machine.kill()
