"""A verdict for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from amphora_mkimage.verify.image_file import GIB, ImageFile
from amphora_mkimage.verify.result import Finding, Outcome, Result

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

    def text(self, *, everything: bool = False) -> str:
        """Render for people: what is not as it should be, one line each, under its group.

        :param everything: also what passed, and what does not apply
        """
        size = f", {self.image.virtual_size / GIB:.4g} GiB" if self.image.is_disk else ""
        system = f", {self.system}" if self.system else ""
        lines = [f"{self.image.path.name}: {self.image.format}{size}{system}"]
        for group in dict.fromkeys(outcome.check.group for outcome in self.outcomes):
            outcomes = [outcome for outcome in self.outcomes if outcome.check.group == group]
            lines += ["", f"{group}: {_tally(outcomes)}", *_lines(outcomes, everything)]
        bare = any(outcome.check.group == "agent" and outcome.result is Result.INFO for outcome in self.outcomes)
        whole = "complete, but for the agent that it was built without" if bare else "a complete amphora"
        verdict = whole if self.complete else "NOT a complete amphora"
        findings = Counter(finding.result for outcome in self.outcomes for finding in outcome.findings)
        numbers = f"{findings[Result.FAIL]} failures, {findings[Result.WARN]} warnings"
        lines += ["", f"{verdict}: {numbers} ({len(self.outcomes)} checks in {self.seconds:.0f} s)"]
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


def _tally(outcomes: Sequence[Outcome]) -> str:
    counted = Counter(outcome.result for outcome in outcomes)
    words = {
        Result.PASS: "passed",
        Result.FAIL: "failed",
        Result.WARN: "with warnings",
        Result.INFO: "with remarks",
        Result.NOT_APPLICABLE: "not applicable",
    }
    reasons = {finding.detail for outcome in outcomes for finding in outcome.findings}
    alone = counted[Result.NOT_APPLICABLE] == len(outcomes) and len(reasons) == 1
    tally = ", ".join(f"{counted[result]} {word}" for result, word in words.items() if counted[result])
    return f"{tally} ({reasons.pop()})" if alone else tally


def _lines(outcomes: Sequence[Outcome], everything: bool) -> list[str]:
    """Give a line a finding; checks that found the same share it."""
    titles: dict[Finding, list[str]] = {}
    for outcome in outcomes:
        for finding in outcome.findings or (Finding(Result.PASS, ""),):
            repeated = finding.result is Result.PASS and outcome.result is not Result.PASS
            if finding.result in _SHOWN or (everything and not repeated):
                titles.setdefault(finding, []).append(outcome.check.title)
    lines = []
    for finding, names in titles.items():
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        detail = f": {finding.detail}" if finding.detail else ""
        lines.append(_printable(f"  {finding.result:<14}  {', '.join(names)}{detail}{remedy}"))
    return lines


def _printable(text: str) -> str:
    """Show control characters of a hostile image's names as what they are, not to the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
