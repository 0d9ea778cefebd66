"""What the two test commands run together is every test that is not slow, each once."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def commands(section: str) -> str:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "tox.ini")
    return parser[section]["commands"]


def test_what_make_test_leaves_out_is_what_test_all_runs() -> None:
    first = re.findall(r"tests/\w+", commands("testenv"))
    rest = commands("testenv:all")
    assert first
    assert re.findall(r"--ignore (tests/\w+)", rest) == first
    assert '-m "not slow"' in rest


def test_ci_runs_both() -> None:
    lines = (REPOSITORY / ".ci/run").read_text().splitlines()
    assert lines[-2:] == ["make test", "exec make test-all"]
