"""What a guest says of the agent's configurations is read as a stranger's word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from make_request import make

from amphora_mkimage.agent import configurations
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError

FEATURES = list(json.loads(configurations.FEATURES.read_text()))


class PrintingGuest:
    """A guest whose program prints what the test says; its files are kept. (The real one is in every build.)"""

    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.files: dict[str, bytes] = {}
        self.ran: list[str] = []

    def write(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def mkdir_p(self, path: str) -> None: ...

    def rm_rf(self, path: str) -> None:
        self.files = {name: content for name, content in self.files.items() if not name.startswith(path)}

    def command(self, arguments: list[str]) -> str:
        self.ran = arguments
        assert f"{arguments[4]}" in self.files
        return self.printed


def said(haproxy: object = "3.0.11", features: object = None, **refused: str) -> str:
    answers = dict.fromkeys(FEATURES, "") | {name.replace("_", " "): alert for name, alert in refused.items()}
    return json.dumps({"haproxy": haproxy, "features": answers if features is None else features})


def test_all_is_taken(console: Console) -> None:
    guest: Any = PrintingGuest("a warning of somebody's\n" + said())
    facts = configurations.check(make(), guest, console)
    assert facts == {"haproxy": "3.0.11", "features": dict.fromkeys(FEATURES, "ok")}
    assert guest.ran[0] == "/opt/amphora-agent-venv/bin/python"
    assert guest.files == {}


def test_a_refusal_fails_the_build(console: Console) -> None:
    guest: Any = PrintingGuest(said(HTTP_monitor="unknown keyword"))
    with pytest.raises(MkimageError, match=f"for 1 of {len(FEATURES)} features") as caught:
        configurations.check(make(), guest, console)
    assert caught.value.tail == ("HTTP monitor: unknown keyword",)
    assert "--octavia 19.0.0 takes it as it is" in caught.value.remedy


@pytest.mark.parametrize("argv", [["--octavia", "2026.2"], ["-p"]])
def test_other_controllers_or_the_distributions_agent_make_it_a_warning(argv: list[str], console: Console) -> None:
    guest: Any = PrintingGuest(said(HTTP_monitor="unknown keyword"))
    facts: Any = configurations.check(make(*argv), guest, console)
    assert facts["features"]["HTTP monitor"] == "unknown keyword"
    assert f"for 1 of {len(FEATURES)} features: HTTP monitor (" in console.warnings[0]


def test_without_an_agent_nothing_is_checked(console: Console) -> None:
    guest: Any = PrintingGuest("")
    assert configurations.check(make("--no-agent"), guest, console) is None
    assert guest.ran == []


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "{}",
        "[]",
        "3",
        "[" * 100_000,
        said(haproxy=3),
        said(haproxy="3.0.11\x1b[2J"),
        said(features=[]),
        said(features={}),
        said(features=dict.fromkeys([*FEATURES, "more"], "")),
        said(HTTP_monitor="x" * 301),
        json.dumps({"haproxy": "3.0.11", "features": {name: ["x"] for name in FEATURES}}),
    ],
    ids=lambda text: text[:24] or "nothing",
)
def test_anything_else_is_refused(printed: str) -> None:
    with pytest.raises(MkimageError, match="printed something else"):
        configurations.read(printed, FEATURES)


def test_nothing_of_it_reaches_the_terminal_as_it_is() -> None:
    answer = configurations.read(said(HTTP_monitor="\x1b[2J\u202e"), FEATURES)
    assert answer.features["HTTP monitor"] == "?[2J?"


def test_the_renderer_is_of_every_python_that_an_agent_has(tmp_path: Path) -> None:
    """CentOS Stream 9 has the oldest, 3.9; what is newer in the language would not be parsed there."""
    text = (configurations.FEATURES.with_name("check_configurations.py")).read_text()
    program = "import ast, sys; ast.parse(sys.stdin.read(), feature_version=(3, 9))"
    subprocess.run([sys.executable, "-c", program], input=text, text=True, check=True)
