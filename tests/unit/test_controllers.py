"""Releases of Octavia against HAProxys: what the shipped table says, and what is made of it."""

from __future__ import annotations

import itertools

import pytest
from make_request import make

from amphora_mkimage import controllers, manpage
from amphora_mkimage.agent import lock
from amphora_mkimage.bases.debian import DEBIAN_MINIMAL
from amphora_mkimage.errors import BadValueError

TABLE = controllers.table()
HTTP_MONITORS = ["HTTP monitor of version 1.0", "HTTP monitor of version 1.1 with a domain name"]


def test_the_table_is_whole() -> None:
    branches = [haproxy.branch for haproxy in TABLE.haproxies]
    assert all(list(verdicts) == branches for verdicts in TABLE.refused.values())
    assert {int(release.split(".")[0]) for release in TABLE.releases} == set(TABLE.series)
    assert all(haproxy.version.startswith(haproxy.branch) for haproxy in TABLE.haproxies)


def test_the_released_agent_is_in_it_and_every_haproxy_takes_what_it_writes() -> None:
    octavia = next(package.version for package in lock.read() if package.name == "octavia")
    assert all(TABLE.refused[octavia][haproxy.branch] == [] for haproxy in TABLE.haproxies)


def test_every_release_of_debian_that_is_built_is_in_it() -> None:
    assert all(TABLE.haproxy("debian", suite) for suite in DEBIAN_MINIMAL.named())


@pytest.mark.parametrize(
    ("octavia", "haproxy", "refused"),
    [
        ("16.1.0", "3.0.11-1+deb13u5", [*HTTP_MONITORS, "HTTPS monitor of version 1.0"]),
        ("16.1.0", "2.6.12", []),
        ("16.0.1", "2.6.12", ["PROMETHEUS listener"]),
        ("17.0.0", "3.2.26", []),
        ("19.0.1.dev7", "3.0.11", []),
        ("16.1.1.dev7", "2.6", []),
        ("19.0.0", "2.8.5", None),
        ("13.0.1", "2.6", None),
        ("", "2.6", None),
    ],
)
def test_verdict(octavia: str, haproxy: str, refused: list[str] | None) -> None:
    assert TABLE.verdict(octavia, haproxy) == refused


@pytest.mark.parametrize(
    ("said", "oldest"),
    [("2025.1", "16.0.0"), ("16", "16.0.0"), ("16.0", "16.0.0"), ("16.1", "16.1.0"), ("16.0.1", "16.0.1")],
)
def test_the_oldest_release_that_is_meant(said: str, oldest: str) -> None:
    assert make("--octavia", said, "-d", "bookworm").octavia == oldest


@pytest.mark.parametrize("said", ["epoxy", "2023.1", "13.0.0", "1", "16.0.9", "16.", "16.0.0.0", "19.0.0 ", "-1"])
def test_an_unknown_release_is_refused_with_the_accepted_forms(said: str) -> None:
    with pytest.raises(BadValueError) as caught:
        make(f"--octavia={said}")
    assert "--octavia" in caught.value.what
    assert "2025.1" in caught.value.remedy
    assert "16" not in caught.value.what or said in caught.value.what


@pytest.mark.parametrize(
    ("argv", "octavia", "release", "warned"),
    [
        ("", "19.0.0", "trixie", []),
        ("--octavia 2025.2", "17.0.0", "trixie", []),
        ("--octavia 16.1", "16.1.0", "bookworm", ["-d bookworm is taken: trixie's HAProxy 3.0 refuses"]),
        ("--octavia 16.1 -d bookworm", "16.1.0", "bookworm", []),
        ("--octavia 16.1 -d trixie", "16.1.0", "trixie", ["(-d bookworm takes more of it)"]),
        ("--octavia 2025.1", "16.0.0", "bookworm", ["-d bookworm is taken", "for PROMETHEUS listener; see docs"]),
        ("--octavia 2025.1 -i fedora", "16.0.0", "44", ["the HAProxy of fedora 44 takes what", "was not tried"]),
        ("-i fedora", "19.0.0", "44", []),
        ("-g stable/2025.1", "16.1.0", "bookworm", ["-d bookworm is taken"]),
        ("-g 17.0.0", "17.0.0", "trixie", []),
        ("-g master", "", "trixie", []),
        ("-g master --octavia 16.1", "16.1.0", "bookworm", ["-d bookworm is taken"]),
        ("-p", "", "trixie", []),
        ("--no-agent", "", "trixie", []),
        ("--no-agent --octavia 16.1", "16.1.0", "bookworm", ["-d bookworm is taken"]),
    ],
)
def test_the_release_that_its_controllers_get(argv: str, octavia: str, release: str, warned: list[str]) -> None:
    warnings: list[str] = []
    request = make(*argv.split(), warnings=warnings)
    assert (request.octavia, request.release) == (octavia, release)
    assert request.summary["octavia"] == (octavia or "unknown")
    assert len(warnings) == bool(warned) + ("see docs" in " ".join(warned) and len(warned) > 1)
    for part in warned:
        assert part in " ".join(warnings)


def test_the_fewest_refusals_win_then_the_default() -> None:
    suites = ["bookworm", "trixie", "sid"]
    chosen = {r: controllers.best_suite(r, "debian", suites, "trixie") for r in TABLE.releases}
    assert {r for r, suite in chosen.items() if suite == "trixie"} == {r for r in TABLE.releases if r >= "17"}
    assert set(chosen.values()) == {"trixie", "bookworm"}
    assert controllers.best_suite("16.1.0", "debian", ["trixie", "sid"], "trixie") == "trixie"
    assert controllers.best_suite("16.1.0", "ubuntu", ["jammy", "noble"], "noble") == "noble"


def test_docs_have_the_table() -> None:
    text = (manpage.REPOSITORY / manpage.CONTROLLERS).read_text(encoding="utf-8")
    assert text == manpage.with_controllers(text), "out of date; run: make docs"
    for release, haproxy in itertools.product(TABLE.releases, TABLE.haproxies):
        assert release in text
        assert f"{haproxy.branch} ({haproxy.suite})" in text
