"""Variables of diskimage-builder's world: each has its meaning, or a sentence that names what to use instead."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest
from make_request import make

from amphora_mkimage import cli, foreign_variables, settings
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.request import Request

CASES = tomllib.loads(Path(__file__).with_name("wrappers.toml").read_text(encoding="utf-8"))


def ask(case: dict[str, str], warnings: list[str]) -> Request:
    pairs = (tuple(pair.split("=", 1)) for pair in case.get("set", "").split(";") if pair)
    return make(*shlex.split(case.get("argv", "")), warnings=warnings, **dict(pairs))


@pytest.mark.parametrize("case", CASES["quiet"], ids=str)
def test_same_meaning(case: dict[str, str]) -> None:
    warnings: list[str] = []
    field, _, value = case["is"].partition("=")
    assert str(getattr(ask(case, warnings), field)) == value
    assert warnings == []


@pytest.mark.parametrize("case", CASES["says"], ids=str)
def test_a_sentence_says_what_to_use(case: dict[str, str]) -> None:
    warnings: list[str] = []
    ask(case, warnings)
    (text,) = [text for text in warnings if case["says"] in text]
    name = text.partition(" ")[0]
    assert f"{name}=" in case["set"]
    assert text.startswith(f"{name} is unused: ")
    assert len(text.splitlines()) == 1 and "sesame" not in text


@pytest.mark.parametrize("case", CASES["refused"], ids=str)
def test_refused_by_name(case: dict[str, str]) -> None:
    with pytest.raises(BadValueError) as caught:
        ask(case, [])
    assert case["refused"] in f"{caught.value.what}\n{caught.value.remedy}"


def test_the_name_that_a_flag_contradicts_is_what_the_script_reads() -> None:
    with pytest.raises(BadValueError) as caught:
        make("-g", "x", DIB_REPOREF_amphora_agent="y")
    assert caught.value.remedy == "keep one; Octavia's script reads DIB_REPOREF_amphora_agent beside the other"
    same = make("-g", "x", DIB_REPOREF_amphora_agent="x").branch
    assert same is not None and same.agent.ref == "x"


@pytest.mark.parametrize("name", foreign_variables.sentences())
def test_every_sentence_is_said(name: str) -> None:
    """And is about a variable that no setting reads: a setting's would never be said."""
    known = {variable.name for setting in settings.SETTINGS for variable in setting.variables}
    variable = name.replace("*", "1")
    assert variable not in known
    (text,) = foreign_variables.remarks({variable: "x"}, known)
    assert text == f"{variable} is unused: {foreign_variables.sentences()[name]}"
    assert not text.endswith(".") and len(text) < 200
    assert foreign_variables.remarks({variable: ""}, known) == []


def test_no_program_sees_what_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REG_PASSWORD", "DIB_PASSWORD", "AMP_ROOTPW", "DIB_DEV_USER_PASSWORD", "BASE_OS_MIRROR", "AMPHORA_X"):
        monkeypatch.setenv(name, "sesame")
    cli._tidy_environment()
    assert [name for name, value in cli.os.environ.items() if value == "sesame"] == ["AMPHORA_X"]
