"""A verdict for people and for machines."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from amphora_mkimage.verify.image_file import ImageFile, human_size
from amphora_mkimage.verify.result import NO_DISK, Finding, Outcome, Result, worst

_SHOWN = (Result.FAIL, Result.WARN, Result.INFO)


@dataclass(frozen=True)
class Report:
    """All outcomes of one image.

    :param system: what the guest calls itself, or ""
    :param seconds: how long it took
    """

    image: ImageFile
    outcomes: Sequence[Outcome]
    system: str = ""
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Tell whether this is a complete amphora."""
        return all(outcome.result is not Result.FAIL for outcome in self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        """Count checks by result."""
        counted = Counter(outcome.result for outcome in self.outcomes)
        return {str(result): counted[result] for result in reversed(Result)}

    def json(self) -> str:
        """Render for machines; keys and ids are stable."""
        document = {
            "image": str(self.image.path),
            "format": self.image.format,
            "virtual_size": self.image.virtual_size,
            "system": self.system,
            "checks": [_check(outcome) for outcome in self.outcomes],
            "summary": {"complete": self.complete, **self.counts, "seconds": round(self.seconds, 1)},
        }
        return json.dumps(document, indent=2)

    def text(self, *, everything: bool = False, width: int | None = None) -> str:
        """Render for people: what is not as it should be, under its group and check.

        :param everything: also what passed, and what does not apply
        :param width: columns of the terminal; None leaves each finding on its line
        """
        size = f", {human_size(self.image.virtual_size)}" if self.image.is_disk else ""
        system = f", {self.system}" if self.system else ""
        lines = [_printable(f"{self.image.path.name}: {self.image.format}{size}{system}")]
        for group in dict.fromkeys(outcome.check.group for outcome in self.outcomes):
            outcomes = [outcome for outcome in self.outcomes if outcome.check.group == group]
            told = _told(outcomes, everything, width)
            alone = _nothing_to_see(outcomes)
            if told or alone:
                lines += ["", f"{group}: {_tally(outcomes)}{alone}", *told]
        bare = any(outcome.check.group == "agent" and outcome.result is Result.INFO for outcome in self.outcomes)
        whole = "complete, but for the agent that it was built without" if bare else "a complete amphora"
        verdict = whole if self.complete else "NOT a complete amphora"
        findings = Counter(finding.result for outcome in self.outcomes for finding in outcome.findings)
        numbers = f"{_count(findings[Result.FAIL], 'failure')}, {_count(findings[Result.WARN], 'warning')}"
        checks = f"{len(self.outcomes)} checks: {_tally(self.outcomes)}; {self.seconds:.0f} s"
        lines += [""] * (len(lines) > 1) + _wrapped(f"{verdict}: {numbers} ({checks})", 0, width)
        return "\n".join(lines)


def _check(outcome: Outcome) -> dict[str, object]:
    # What passed is no news beside a failure of the same check.
    telling = [f for f in outcome.findings if f.result is outcome.result] or list(outcome.findings)
    return {
        "id": outcome.check.id,
        "group": outcome.check.group,
        "title": outcome.check.title,
        "result": str(outcome.result),
        "detail": "; ".join(f.detail for f in telling if f.detail),
        "findings": [
            {"result": str(f.result), "detail": f.detail, "remedy": f.remedy}
            for f in outcome.findings
            if f.result not in (Result.PASS, Result.NOT_APPLICABLE)
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tally(outcomes: Sequence[Outcome]) -> str:
    counted = Counter(outcome.result for outcome in outcomes)
    words = {
        Result.FAIL: "failed",
        Result.WARN: "with warnings",
        Result.INFO: "with remarks",
        Result.PASS: "passed",
        Result.NOT_APPLICABLE: "not applicable",
    }
    return ", ".join(f"{counted[result]} {word}" for result, word in words.items() if counted[result])


def _nothing_to_see(outcomes: Sequence[Outcome]) -> str:
    """Return why a whole group could not be looked at, or ""; a tar's disk is missed by nobody."""
    reasons = {finding.detail for outcome in outcomes for finding in outcome.findings}
    if len(reasons) != 1 or any(outcome.result is not Result.NOT_APPLICABLE for outcome in outcomes):
        return ""
    reason = reasons.pop()
    return "" if reason == NO_DISK else f" ({reason})"


def _told(outcomes: Sequence[Outcome], everything: bool, width: int | None) -> list[str]:
    """Return the lines of a group: the title of a check, and below it what was found.

    Checks that found the same share it.
    """
    titles: dict[Finding, list[str]] = {}
    for outcome in outcomes:
        for finding in outcome.findings or (Finding(Result.PASS, ""),):
            repeated = finding.result is Result.PASS and outcome.result is not Result.PASS
            if finding.result in _SHOWN or (everything and not repeated):
                titles.setdefault(finding, []).append(outcome.check.title)
    found: dict[tuple[str, ...], list[Finding]] = {}
    for finding, names in titles.items():
        found.setdefault(tuple(names), []).append(finding)
    lines: list[str] = []
    for checks, findings in found.items():
        of_all = worst(finding.result for finding in findings)
        lines += _wrapped(f"{of_all}: {', '.join(checks)}", 2, width)
        for finding in findings:
            result = f"{finding.result}: " if finding.result is not of_all else ""
            if finding.detail:
                lines += _wrapped(f"{result}{finding.detail}", 6, width)
            if finding.remedy:
                lines += _wrapped(f"-> {finding.remedy}", 8, width)
    return lines


def _wrapped(text: str, indent: int, width: int | None) -> list[str]:
    line = " " * indent + _printable(text)
    if width is None or len(line) < width:
        return [line]
    hang = " " * (indent + 2)
    return textwrap.wrap(line, width - 1, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def _printable(text: str) -> str:
    """Show control characters of a hostile image's names as what they are, not to the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
