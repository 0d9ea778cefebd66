"""What the guest reports, and what is made of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage.boot import haproxy
from amphora_mkimage.boot.controller import Step
from amphora_mkimage.boot.death import Death
from amphora_mkimage.boot.management import MAC, NETWORKS, Kind
from amphora_mkimage.boot.report import GuestReport, phases
from amphora_mkimage.boot.session import Outcome
from amphora_mkimage.boot.verdict import Verdict

FACTS: dict[str, Any] = {
    "event": "facts",
    "kernel": "6.12.1-cloud-amd64",
    "os": "Debian GNU/Linux 13 (trixie)",
    "failed": [],
    "timestamps": {"firmware": 0, "loader": 0, "initrd": 0, "userspace": 8_000_000, "finish": 60_500_000},
    "cloud_init": {"datasource": "DataSourceConfigDrive", "errors": [], "runcmd": True},
}
HAPROXY = {"event": "haproxy", "version": "HAProxy version 3.0.11", "valid": True, "started": True, "output": []}


def report(*events: dict[str, Any]) -> GuestReport:
    result = GuestReport()
    for event in events:
        result.take(json.dumps(event))
    return result


def good(**facts: Any) -> Outcome:
    events = [
        {"event": "started"},
        {"event": "running", "state": "running"},
        {**FACTS, **facts},
        HAPROXY,
        {"event": "end"},
    ]
    return Outcome(report=report(*events), boot_seconds=70.0, answer=haproxy.Answer(200, haproxy.DEFAULT_ANSWER))


def verdict(outcome: Outcome, expected: bytes | None = haproxy.DEFAULT_ANSWER) -> Verdict:
    return Verdict(Path("a.qcow2"), "qcow2", "bios", "tcg", 900.0, outcome, expected)


def test_events_are_taken_in() -> None:
    blame = {"event": "blame", "blame": ["1min 2.500s slow.service", "     150ms fast.service", "nonsense"]}
    taken = report({"event": "waiting", "jobs": ["networking.service"]}, blame)
    assert taken.jobs == ("networking.service",)
    assert taken.blame == (("slow.service", 62.5), ("fast.service", 0.15))
    assert not taken.complete


def test_the_phases_are_those_of_systemd_analyze() -> None:
    # firmware and loader count back from the start of the kernel, the others forward (systemd's analyze-time-data.c)
    stamps = {
        "firmware": 9_000_000,
        "loader": 4_000_000,
        "initrd": 2_000_000,
        "userspace": 5_000_000,
        "finish": 30_000_000,
    }
    expected = {"firmware": 5.0, "loader": 4.0, "kernel": 2.0, "initrd": 3.0, "userspace": 25.0}
    assert phases(stamps) == expected


@pytest.mark.parametrize(
    "line",
    ["", "login:", "{", "[]", "null", '{"event": 5}', '{"event": "facts", "failed": [3], "cloud_init": "x"}',
     '{"event": "haproxy", "output": {}}', '{"event": "waiting", "jobs": "x"}', '{"event": "blame", "blame": [1]}',
     '{"event": "facts", "timestamps": {"userspace": "x", "finish": -1}}'],
)  # fmt: skip
def test_a_guest_that_talks_nonsense_is_survived(line: str) -> None:
    taken = GuestReport()
    taken.take(line)
    assert not taken.complete
    assert verdict(Outcome(report=taken, timed_out=True)).problems()


def test_text_of_the_guest_cannot_command_the_terminal() -> None:
    journal = ["\x1b]0;owned\x07\x1b[31mred\x1b[0m\x9b2J\r\x08"]
    taken = report({**FACTS, "failed": [{"unit": "bad\x1b[2J.service", "journal": journal}]})
    assert taken.facts is not None
    assert taken.facts.failed[0].journal == ("red2J",)
    assert "\x1b" not in verdict(Outcome(report=taken, boot_seconds=1.0)).as_text()
    assert "unknown from power-on" in verdict(Outcome(report=taken)).as_text()


def test_a_good_boot_has_no_problem() -> None:
    result = verdict(good())
    assert result.problems() == []
    assert result.as_json()["ok"] is True
    assert result.as_json()["systemd_seconds"] == {"kernel": 8.0, "userspace": 52.5}
    assert "a.qcow2: runs (BIOS, emulated)" in result.as_text()


def test_everything_that_is_wrong_is_told_at_once() -> None:
    failed = [{"unit": "a.service", "journal": ["boom"]}, {"unit": "b.service", "journal": []}]
    outcome = good(failed=failed, cloud_init={"datasource": "None", "errors": ["no"], "runcmd": False})
    outcome.report.state, outcome.report.agent = "degraded", "x.service"
    outcome.answer, outcome.answer_error, outcome.agent_error = None, "refused", "timed out"
    assert verdict(outcome).problems() == [
        "a.service failed",
        "b.service failed",
        "cloud-init: no",
        "cloud-init did not run the runcmd of the user data",
        "haproxy does not answer: refused",
        "x.service does not answer: timed out",
    ]
    assert "boom" in verdict(outcome).as_text()


def amphora(*events: dict[str, Any], error: str = "") -> Outcome:
    """A boot of an image with an agent, which the controller drove to the end, or to an error."""
    outcome = good()
    outcome.report.take(json.dumps({"event": "started", "agent": "amphora-agent.service"}))
    for event in events:
        outcome.report.take(json.dumps(event))
    outcome.agent_version, outcome.agent_seconds = "1.0", 99.0
    outcome.steps = [Step("info", 1.5, "haproxy 3"), Step("start", 2.0, error=error)]
    return outcome


def test_an_amphora_that_was_driven() -> None:
    result = verdict(amphora({"event": "units", "failed": [], "deleted": True}))
    assert result.problems() == []
    assert result.as_json()["agent"] == {
        "unit": "amphora-agent.service",
        "api_version": "1.0",
        "seconds": 99.0,
        "steps": [
            {"name": "info", "seconds": 1.5, "detail": "haproxy 3", "error": "", "ok": True},
            {"name": "start", "seconds": 2.0, "detail": "", "error": "", "ok": True},
        ],
        "failed_units": [],
    }
    assert "amphora-agent.service: API 1.0 answers 99.0 s after power-on" in result.as_text()
    assert "1.5 s info: haproxy 3" in result.as_text()


def test_a_step_that_failed_and_a_unit_that_failed_with_it() -> None:
    units = {"event": "units", "failed": [{"unit": "haproxy-1.service", "journal": ["no netns"]}], "deleted": False}
    result = verdict(amphora(units, error="status 500"))
    assert result.problems() == [
        "amphora agent, start: status 500",
        "haproxy-1.service failed while the agent was driven",
    ]
    assert "no netns" in result.as_text()
    assert result.as_json()["agent"]["failed_units"] == [{"unit": "haproxy-1.service", "journal": ["no netns"]}]


def test_units_that_are_not_known_in_the_end_are_a_problem() -> None:
    assert verdict(amphora()).problems() == [
        "the guest did not report its units after the deletion of the load balancer"
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": ""}, "the guest has no working haproxy"),
        ({"valid": False, "started": False}, "haproxy does not accept the configuration"),
        ({"started": False}, "haproxy did not start"),
    ],
)
def test_haproxy_in_the_guest(change: dict[str, Any], problem: str) -> None:
    outcome = good()
    outcome.report.take(json.dumps({**HAPROXY, **change}))
    assert verdict(outcome).problems() == [problem]


def test_only_our_own_configuration_has_a_known_answer() -> None:
    outcome = good()
    outcome.answer = haproxy.Answer(503, b"")
    assert verdict(outcome, None).problems() == []
    assert len(verdict(outcome).problems()) == 1


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([], "not running after 900 s; cloud-init did not get as far as the user data"),
        ([{"event": "started"}], "not running after 900 s"),
        (
            [{"event": "started"}, {"event": "waiting", "jobs": ["a.service", "b.service"]}],
            "not running after 900 s; still starting: a.service, b.service",
        ),
        ([{"event": "running", "state": "running"}], "the guest's report was not complete after 900 s"),
    ],
)
def test_too_late_says_what_is_waited_for(events: list[dict[str, Any]], problem: str) -> None:
    assert verdict(Outcome(report=report(*events), timed_out=True)).problems() == [problem]


def test_too_late_repeats_what_the_console_said_last() -> None:
    (problem,) = verdict(Outcome(report=report(), timed_out=True, tail=("one", " two  "))).problems()
    assert problem.endswith("; the console last said: two")


def restarted(*events: dict[str, Any]) -> Outcome:
    outcome = amphora({"event": "units", "failed": [{"unit": "a.service", "journal": ["first"]}], "deleted": False})
    outcome.restarts = [report(*events)]
    return outcome


def test_after_a_restart_the_last_report_counts() -> None:
    well = restarted({"event": "units", "failed": [], "deleted": True})
    assert verdict(well).problems() == []
    # The first boot's times are those of the image.
    assert verdict(well).as_json()["systemd_seconds"] == {"kernel": 8.0, "userspace": 52.5}
    ill = restarted({"event": "units", "failed": [{"unit": "b.service", "journal": ["second"]}], "deleted": True})
    assert verdict(ill).problems() == ["b.service failed while the agent was driven"]
    assert "second" in verdict(ill).as_text()


def test_without_an_agent_there_is_nothing_to_look_for_after_a_reboot() -> None:
    assert verdict(good()).problems() == []
    (problem,) = dataclasses.replace(verdict(good()), reboot=True).problems()
    assert "no amphora agent" in problem


def test_a_guest_that_reaches_no_controller_was_not_asked() -> None:
    network = {"event": "network", "cards": [{"name": "eth0", "mac": MAC, "mtu": 1450}], "routes": {"ipv4": ["x"]}}
    outcome = good()
    outcome.report.take(json.dumps({"event": "started", "agent": "amphora-agent.service"}))
    outcome.report.take(json.dumps(network))
    outcome.unreachable, outcome.agent_error = ("no default route",), "timed out"
    result = dataclasses.replace(verdict(outcome), network=NETWORKS[Kind.DHCP])
    (problem,) = result.problems()
    assert problem.startswith("no default route for IPv4 on eth0")
    assert result.as_json()["network"] == {
        "kind": "dhcp",
        "card": "eth0",
        "mtu": 1450,
        "routes": {"ipv4": ["x"], "ipv6": []},
    }
    assert "network     eth0, MTU 1450\n              x\n" in result.as_text()


def test_keys_of_the_json_are_the_same_for_a_good_boot_and_a_dead_one() -> None:
    dead = verdict(Outcome(death=Death("the kernel panicked")))
    assert dead.as_json().keys() == verdict(good()).as_json().keys()
    assert dead.as_json()["ok"] is False
    json.dumps(dead.as_json())
