"""Tables of docs/ that are made from data: ``python -m amphora_mkimage.tables`` writes them into this checkout."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from amphora_mkimage import foreign_variables
from amphora_mkimage.agent import lock, rule, support
from amphora_mkimage.agent.rule import RELEASED, Choice
from amphora_mkimage.bases import BASES, Base, Release

REPOSITORY = Path(__file__).parents[1]


def branches() -> str:
    """Return which agent is accepted on which release, or why not."""
    columns: dict[str, list[str]] = {}
    for base in BASES.values():
        for name, release in base.releases.items():
            if not release.refused:
                columns.setdefault(f"{release.python}, {'RPM' if base.dnf else 'deb'}", []).append(
                    f"{base.distribution} {name}"
                )
    heads = sorted(columns, key=lambda head: (int(head.split(",")[0].split(".")[1]), head))
    places = [", ".join(dict.fromkeys(columns[head])) for head in heads]
    choices = [RELEASED, *(Choice("branch", ref, published=True) for ref in support.read())]
    rows = [[_agent(choice), *(_cell(choice, head) for head in heads)] for choice in choices]
    first = ["agent", *(f"Python {head.split(',')[0]}: {place}" for head, place in zip(heads, places, strict=True))]
    return _markdown(first, rows)


def variables() -> str:
    """Return what to use instead of each variable that has no setting."""
    rows = [[f"`{name}`", text] for name, text in foreign_variables.sentences().items()]
    return _markdown(["variable", "here"], rows)


def _agent(choice: Choice) -> str:
    return "released" if choice == RELEASED else f"`-g {choice.ref}`"


def _cell(choice: Choice, head: str) -> str:
    python, _, kind = head.partition(", ")
    base = _any(lambda base: base.dnf == (kind == "RPM"))
    reason = rule.refusal(choice, base, Release("", python=python))
    known = support.read().get(choice.ref)
    if reason and known and python not in known.pythons:
        return f"no: {known.python}"
    if reason and known:
        return f"no: {known.lacking.get(python) or ', '.join(known.modules[python])}"
    return f"no: >={lock.PYTHONS[0]}" if reason else "yes"


def _any(fits: Callable[[Base], bool]) -> Base:
    return next(base for base in BASES.values() if fits(base))


def _markdown(first: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [first, ["---"] * len(first), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


#: What makes each table, by its name in the comments around it.
TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "branches": ("docs/agent.md", branches),
    "variables": ("docs/compatibility.md", variables),
}


def with_table(text: str, name: str) -> str:
    """Return the text of a document with a table as it is now."""
    begin, end = f"<!-- begin {name}: made by make docs -->\n", f"<!-- end {name} -->\n"
    made = f"{begin}\n{TABLES[name][1]()}\n{end}"
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: made, text, flags=re.DOTALL)


def main() -> int:
    """Write all of them."""
    for name, (path, _) in TABLES.items():
        file = REPOSITORY / path
        file.write_text(with_table(file.read_text(encoding="utf-8"), name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
