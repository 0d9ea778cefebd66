"""Flag, variable, default: which of them wins, and how text becomes a value."""

from __future__ import annotations

import pytest

from amphora_mkimage import cli, settings
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.setting import Setting, Value, parse_bool


def resolve(*argv: str, **environ: str) -> dict[str, Value]:
    return settings.resolve(vars(cli.build_parser().parse_args(list(argv))), environ)


#: Defaults of Octavia's first specification (specs/version0.5/base-image.rst in its repository).
SPECIFIED = {
    "arch": "amd64",
    "backend": "haproxy",
    "cache_dir": "~/.cache/image-create",
    "base_os": "ubuntu",
    "output": "amphora-x64-haproxy",
    "root_password": None,
    "size": "5",
    "types": "qcow2",
    "working_dir": ".",
}


def test_defaults_are_those_of_the_specification() -> None:
    values = resolve()
    assert {name: values[name].value for name in SPECIFIED} == SPECIFIED
    assert not any(value.said for value in values.values())
    assert values["cache_dir"].origin == "the cache directory (-c, default ~/.cache/image-create)"


def test_every_flag_of_diskimage_create_and_a_long_option_for_each() -> None:
    short = {flag[1:] for setting in settings.SETTINGS for flag in setting.flags if not flag.startswith("--")}
    assert short >= set("abcdefgiklmnoprstwxy")  # -h and -v are the parser's own
    for setting in settings.SETTINGS:
        assert not setting.flags or setting.flags[-1].startswith("--")


def test_names_flags_and_variables_are_unique() -> None:
    for kind in (
        [setting.name for setting in settings.SETTINGS],
        [flag for setting in settings.SETTINGS for flag in setting.flags],
        [variable.name for setting in settings.SETTINGS for variable in setting.variables],
    ):
        assert len(kind) == len(set(kind))


@pytest.mark.parametrize("setting", [s for s in settings.SETTINGS if s.flags and s.variables], ids=lambda s: s.name)
def test_flag_wins_over_variable_over_default(setting: Setting) -> None:
    texts = setting.choices or (("1", "0") if setting.switch else ("from-flag", "from-variable"))
    texts = (texts[0], texts[-1])
    variable = setting.variables[0]
    value = resolve(**{variable.name: texts[1]})[setting.name]
    assert value.origin == variable.name
    assert value.value == setting.parse(texts[1])
    for flag in setting.flags:
        argv = [flag] if setting.switch else [flag, texts[0]]
        if variable.beside:
            with pytest.raises(BadValueError, match="contradict each other"):
                resolve(*argv, **{variable.name: texts[1]})
            continue
        value = resolve(*argv, **{variable.name: texts[1]})[setting.name]
        assert value.origin == setting.flags[0]
        assert value.value == (True if setting.switch else texts[0])


def test_variables_in_their_order_and_empty_is_unset() -> None:
    assert resolve(AMP_DIB_RELEASE="bookworm", DIB_RELEASE="trixie")["release"].value == "bookworm"
    assert resolve(DIB_RELEASE="trixie")["release"] == Value("trixie", "DIB_RELEASE")
    assert resolve(AMP_DIB_RELEASE="", DIB_RELEASE="trixie")["release"].origin == "DIB_RELEASE"
    mirrors = resolve(BASE_OS_MIRROR="http://a/", DIB_DISTRIBUTION_MIRROR="http://b/")
    assert mirrors["mirror"].value == "http://a/"


@pytest.mark.parametrize(
    ("environ", "no_ssh"),
    [
        ({}, False),
        ({"DIB_OCTAVIA_AMP_USE_SSH": "True"}, False),
        ({"DIB_OCTAVIA_AMP_USE_SSH": "1"}, False),
        ({"DIB_OCTAVIA_AMP_USE_SSH": "False"}, True),
        ({"DIB_OCTAVIA_AMP_USE_SSH": "0"}, True),
        ({"AMP_DISABLE_SSHD": "1"}, True),
        ({"AMP_DISABLE_SSHD": "1", "DIB_OCTAVIA_AMP_USE_SSH": "0"}, True),
    ],
)
def test_ssh_is_asked_for_by_its_opposite(environ: dict[str, str], no_ssh: bool) -> None:
    assert resolve(**environ)["no_ssh"].value is no_ssh


@pytest.mark.parametrize("text", ["True", "true", "1", "yes", "on", " TRUE "])
def test_true(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["False", "false", "0", "no", "off", ""])
def test_false(text: str) -> None:
    assert parse_bool(text) is False


def test_a_switch_that_is_neither_names_its_variable() -> None:
    with pytest.raises(BadValueError, match=r"AMP_DISABLE_SSHD.*'maybe'"):
        resolve(AMP_DISABLE_SSHD="maybe")


@pytest.mark.parametrize(
    ("variable", "value"), [("AMP_ARCH", "sparc"), ("AMP_BACKEND", "nginx"), ("AMP_BASEOS", "windows")]
)
def test_a_choice_names_variable_and_accepted_values(variable: str, value: str) -> None:
    with pytest.raises(BadValueError, match=f"{variable}.*{value}") as caught:
        resolve(**{variable: value})
    assert caught.value.remedy.startswith("accepted values: ")


def test_nftables_is_on_unless_said_otherwise() -> None:
    assert resolve()["nftables"].value is True
    assert resolve(DIB_OCTAVIA_AMP_USE_NFTABLES="False")["nftables"].value is False


def test_options_are_not_abbreviated() -> None:
    """A script that used an abbreviation would break with the next option."""
    with pytest.raises(BadValueError):
        resolve("--rel", "trixie")


def test_help_mentions_every_flag_and_default() -> None:
    text = cli.build_parser().format_help()
    for setting in settings.SETTINGS:
        for flag in setting.flags:
            assert flag in text
