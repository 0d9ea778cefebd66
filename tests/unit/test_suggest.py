"""What is said to somebody who wrote something that there is not, and what the help offers."""

from __future__ import annotations

import re

import pytest

from amphora_mkimage import cli, settings, suggest
from amphora_mkimage.bases import BASES
from amphora_mkimage.bases.version_numbers import NAMES
from amphora_mkimage.errors import BadValueError, ExitStatus

#: Command line, what is told, what is proposed, and one of the accepted values.
MEANT = [
    ("verfy image", "there is no command 'verfy'", "amphora-mkimage verify?", "check"),
    ("--dryrun", "there is no option --dryrun", "amphora-mkimage --dry-run?", "--help"),
    ("--realease=trixie", "there is no option --realease", "amphora-mkimage --release?", "--help"),
    ("check --jsn", "there is no option --jsn", "amphora-mkimage check --json?", "check --help"),
    ("-i debain-minimal", "-i: unsupported value 'debain-minimal'", "debian-minimal?", "ubuntu-minimal"),
    ("-a amd46", "-a: unsupported value 'amd46'", "amd64?", "ppc64le"),
    ("-a X86-64", "-a: unsupported value 'X86-64'", "x86_64?", "amd64"),
    ("-b haprox", "-b: unsupported value 'haprox'", "haproxy?", "haproxy"),
    ("-t qcow", "-t: unsupported image type 'qcow'", "qcow2?", "vhd"),
    ("-i debian -d bokworm", "-d: unknown release 'bokworm' of debian", "bookworm?", "trixie"),
    ("--guest appliace", "--guest: unsupported value 'appliace'", "appliance?", "auto"),
    ("verify --root-password lockd image", "--root-password: unsupported value 'lockd'", "locked?", "any"),
    ("boot --arch arm46 image", "--arch: unsupported value 'arm46'", "arm64?", "i386"),
]


@pytest.mark.parametrize(("line", "what", "proposed", "accepted"), MEANT, ids=[line for line, *_ in MEANT])
def test_what_was_probably_meant(
    line: str, what: str, proposed: str, accepted: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == ExitStatus.BAD_VALUE
    first, remedy = capfd.readouterr().err.splitlines()
    assert first == f"amphora-mkimage: error: {what}"
    assert remedy.startswith(f"  what to do: did you mean {proposed} ")
    assert accepted in remedy


@pytest.mark.parametrize("line", ["xyzzy", "--xyzzy", "-i xyzzy", "-t xyzzy", "verify image xyzzy"])
def test_nothing_is_proposed_that_is_not_near(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == ExitStatus.BAD_VALUE
    assert "did you mean" not in capfd.readouterr().err


def test_what_is_refused_is_not_proposed_either() -> None:
    with pytest.raises(BadValueError, match="centos-minima'") as caught:
        settings.resolve({"base_os": "centos-minima"}, {})
    assert "centos-minimal" not in caught.value.remedy


def test_the_nearest_one() -> None:
    assert suggest.did_you_mean("TRIXY", ["bookworm", "trixie"]) == "did you mean trixie? "


def test_numbers_stand_for_known_releases() -> None:
    for distribution, numbers in NAMES.items():
        releases = {name for base in BASES.values() if base.distribution == distribution for name in base.releases}
        assert set(numbers.values()) & releases
        assert set(base_numbers(distribution)) <= set(numbers.values())


def base_numbers(distribution: str) -> list[str]:
    """The releases of a distribution that are not refused: each has a number."""
    return [name for base in BASES.values() if base.distribution == distribution for name in base.named()]


def test_help_offers_every_value_and_every_variable() -> None:
    """As words of their own, whole."""
    text = " ".join(cli.build_parser().format_help().split())
    for setting in settings.SETTINGS:
        for name in (*(setting.choices or ()), *(variable.name for variable in setting.variables)):
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name
    for base in BASES.values():
        for release in base.named():
            assert re.search(rf"(?<![\w-]){re.escape(release)}(?![\w-])", text), release
    for same in settings.SAME_BASES:
        assert same not in text


@pytest.mark.parametrize("columns", range(70, 120, 3))
def test_help_fits_the_terminal_and_no_name_is_broken(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = cli.build_parser().format_help().splitlines()
    assert max(map(len, lines)) < columns
    assert [line for line in lines if re.search(r"\w-$", line)] == []
