"""What an observed boot means: everything that is wrong, as text and as JSON."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amphora_mkimage.boot import haproxy
from amphora_mkimage.boot.management import NETWORKS, Kind, Management
from amphora_mkimage.boot.report import FailedUnit
from amphora_mkimage.boot.session import Outcome

_SLOWEST = 10
FIRMWARE = {"bios": "BIOS", "uefi": "UEFI", "openfirmware": "Open Firmware"}


@dataclass(frozen=True)
class Verdict:
    """A boot and how it was made.

    :param image: the image
    :param firmware: a key of :data:`FIRMWARE`
    :param accelerator: "kvm" or "tcg"
    :param timeout: seconds that were allowed
    :param expected: what haproxy has to answer; None when the configuration is the user's own and may answer anything
    :param network: the guest's management network
    :param reboot: the guest was to be restarted
    :param console_log: where the serial console is kept, "" when it is not
    """

    image: Path
    image_format: str
    firmware: str
    accelerator: str
    timeout: float
    outcome: Outcome
    expected: bytes | None
    network: Management = NETWORKS[Kind.USER]
    reboot: bool = False
    console_log: str = ""

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each; empty when the image runs."""
        outcome, found = self.outcome, []
        if outcome.death:
            found.append(outcome.death.what)
        elif outcome.timed_out:
            found.append(self._late())
        if outcome.report.state not in ("", "running", "degraded"):
            found.append(f"the system's state is {outcome.report.state}, not running")
        if outcome.report.network:
            found += outcome.report.network.problems(self.network)
        return found + self._fact_problems() + self._haproxy_problems() + self._agent_problems()

    def _late(self) -> str:
        report = self.outcome.report
        if report.state:
            return f"the guest's report was not complete after {self.timeout:.0f} s"
        text = f"not running after {self.timeout:.0f} s"
        if report.jobs:
            text += f"; still starting: {', '.join(report.jobs)}"
        elif not report.started:
            text += "; cloud-init did not get as far as the user data"
        return text + (f"; the console last said: {self.outcome.tail[-1].strip()}" if self.outcome.tail else "")

    def _fact_problems(self) -> list[str]:
        facts = self.outcome.report.facts
        if facts is None:
            return []
        found = [f"{unit.unit} failed" for unit in facts.failed]
        if self.outcome.report.state == "degraded" and not found:
            found.append("the system is degraded")
        found += [f"cloud-init: {error}" for error in facts.cloud_init.errors]
        if not facts.cloud_init.runcmd:
            found.append("cloud-init did not run the runcmd of the user data")
        return found

    def _agent_problems(self) -> list[str]:
        outcome, report = self.outcome, self.outcome.report
        if not report.complete or outcome.death:
            return []
        if not report.agent:
            return ["--reboot: there is no amphora agent, so no load balancer to look for"] if self.reboot else []
        if outcome.unreachable:
            return []  # nobody asked it
        if not outcome.agent_version:
            return [f"{report.agent} does not answer: {outcome.agent_error}"]
        found = [f"amphora agent, {step.name}: {step.error}" for step in outcome.steps if step.error]
        before = {unit.unit for unit in report.facts.failed} if report.facts else set()
        later = outcome.latest.later
        found += [f"{unit.unit} failed while the agent was driven" for unit in later if unit.unit not in before]
        if not found and not outcome.latest.deleted:
            found.append("the guest did not report its units after the deletion of the load balancer")
        return found

    def _haproxy_problems(self) -> list[str]:
        report, answer, text = self.outcome.report.haproxy, self.outcome.answer, ""
        if report is None:
            pass  # it did not come to that; why is already said
        elif not report.version:
            text = "the guest has no working haproxy"
        elif not report.valid:
            text = "haproxy does not accept the configuration"
        elif not report.started:
            text = "haproxy did not start"
        elif answer is None:
            text = f"haproxy does not answer: {self.outcome.answer_error}"
        elif self.expected is not None and (answer.status != 200 or answer.body != self.expected):
            text = f"haproxy answered with status {answer.status} and something else than its configuration says"
        return [text] if text else []

    def as_json(self) -> dict[str, Any]:
        """Return the verdict with stable keys; what is not known is null."""
        report, outcome = self.outcome.report, self.outcome
        facts, proxy = report.facts, report.haproxy
        return {
            "image": str(self.image),
            "format": self.image_format,
            "firmware": self.firmware,
            "accelerator": self.accelerator,
            "ok": not self.problems(),
            "problems": self.problems(),
            "state": report.state or None,
            "os": facts.os if facts else None,
            "kernel": facts.kernel if facts else None,
            "failed_units": _units_json(facts.failed) if facts else None,
            "starting_units": list(report.jobs),
            "boot_seconds": outcome.boot_seconds,
            "systemd_seconds": facts.phases if facts else None,
            "slowest_units": [{"unit": unit, "seconds": seconds} for unit, seconds in report.blame],
            "cloud_init": {
                "datasource": facts.cloud_init.datasource,
                "errors": list(facts.cloud_init.errors),
                "runcmd": facts.cloud_init.runcmd,
            }
            if facts
            else None,
            "network": {"kind": self.network.kind, **report.network.as_json()} if report.network else None,
            "haproxy": {
                "version": proxy.version,
                "valid": proxy.valid,
                "started": proxy.started,
                "output": list(proxy.output),
                "answered": outcome.answer is not None,
                "http_status": outcome.answer.status if outcome.answer else None,
            }
            if proxy
            else None,
            "agent": self._agent_json() if report.agent else None,
            "console_tail": list(outcome.tail) if self.problems() else [],
            "console_log": self.console_log or None,
        }

    def _agent_json(self) -> dict[str, Any]:
        outcome, report, last = self.outcome, self.outcome.report, self.outcome.latest
        return {
            "unit": report.agent,
            "api_version": outcome.agent_version,
            "seconds": outcome.agent_seconds,
            "steps": [{**vars(step), "ok": not step.error} for step in outcome.steps],
            "failed_units": _units_json(last.later) if last.later or last.deleted else None,
        }

    def as_text(self) -> str:
        """Write the verdict for people."""
        problems = self.problems()
        word = "does not run" if self.outcome.death or self.outcome.timed_out else "runs, but" if problems else "runs"
        accelerator = {"kvm": "KVM", "tcg": "emulated"}[self.accelerator]
        lines = [f"{self.image}: {word} ({FIRMWARE[self.firmware]}, {accelerator})"]
        lines += [f"  problem: {problem}" for problem in problems]
        if self.outcome.death and self.outcome.death.remedy:
            lines.append(f"  what to do: {self.outcome.death.remedy}")
        lines += [f"  {name:<11} {value}" for name, value in self._rows()]
        proxy = self.outcome.report.haproxy
        for unit in self._failed_units():
            lines += [f"  {unit.unit}:", *(f"    {line}" for line in unit.journal)]
        if proxy and not proxy.started:
            lines += ["  haproxy:", *(f"    {line}" for line in proxy.output)]
        if problems and self.outcome.tail:
            lines += ["  last lines of the serial console:", *(f"    {line}" for line in self.outcome.tail)]
        if self.console_log:
            lines.append(f"  serial console: {self.console_log}")
        return "\n".join(lines) + "\n"

    def _failed_units(self) -> list[FailedUnit]:
        """Return the units that failed in any boot; the last journal of each."""
        reports = (self.outcome.report, *self.outcome.restarts)
        facts = [report.facts.failed if report.facts else () for report in reports]
        units = itertools.chain(*facts, *(report.later for report in reports))
        return list({unit.unit: unit for unit in units}.values())

    def _rows(self) -> list[tuple[str, str]]:
        outcome, report = self.outcome, self.outcome.report
        rows = []
        if report.facts:
            facts = report.facts
            rows.append(("system", f"{report.state}; {facts.os}, kernel {facts.kernel}"))
            phases = ", ".join(f"{name} {phase:.1f}" for name, phase in facts.phases.items())
            # What the guest says need not be complete: facts may come without the event that it runs.
            seconds = "unknown" if outcome.boot_seconds is None else f"{outcome.boot_seconds:.1f} s"
            rows.append(("boot", f"{seconds} from power-on to running (systemd: {phases})"))
            rows += [("slow", f"{seconds:5.1f} s {unit}") for unit, seconds in report.blame[:_SLOWEST]]
            rows.append(("cloud-init", facts.cloud_init.datasource or "found no data source"))
        if report.network:
            rows += report.network.rows()
        if report.haproxy and outcome.answer:
            rows.append(("haproxy", f"{report.haproxy.version}: answers with status {outcome.answer.status}"))
        if outcome.agent_version:
            answers = f"API {outcome.agent_version} answers {outcome.agent_seconds:.1f} s after power-on"
            rows.append(("agent", f"{report.agent}: {answers}"))
        rows += [
            ("", f"{step.seconds:5.1f} s {step.name}: {step.error or step.detail or 'done'}") for step in outcome.steps
        ]
        return rows


def _units_json(units: tuple[FailedUnit, ...]) -> list[dict[str, Any]]:
    return [{"unit": unit.unit, "journal": list(unit.journal)} for unit in units]


def expected_answer(config: Path) -> bytes | None:
    """Return what haproxy has to answer with a configuration, when we know it."""
    return haproxy.DEFAULT_ANSWER if config == haproxy.DEFAULT_CONFIG else None
