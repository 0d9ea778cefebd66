"""Which agent may run on which release: what is accepted, why not, and that every remedy is accepted."""

from __future__ import annotations

import re

import pytest
from branch_world import CONSTRAINTS, SETUP_CFG, World
from make_request import make
from package_index import add, source

from amphora_mkimage import packages, tables
from amphora_mkimage.agent import lock, rule, support
from amphora_mkimage.agent.rule import Choice
from amphora_mkimage.bases import BASES
from amphora_mkimage.errors import BadValueError

RELEASES = [
    (base.name, name) for base in BASES.values() for name, release in base.releases.items() if not release.refused
]
AGENTS = [[], ["-p"], ["--no-agent"], *(["-g", ref] for ref in support.read())]
#: What is known from elsewhere: python_requires of octavia's releases, /usr/bin/python3 of the releases.
KNOWN = [
    ([], "debian-minimal", "bookworm", ""),
    ([], "ubuntu-minimal", "jammy", "needs Python 3.11, and it has 3.10"),
    ([], "centos", "9-stream", "needs Python 3.11, and it has 3.9"),
    (["-p"], "ubuntu-minimal", "jammy", ""),
    (["--no-agent"], "rocky", "9", ""),
    (["-g", "stable/2026.1"], "ubuntu", "jammy", ""),
    (["-g", "stable/2025.2"], "ubuntu", "jammy", ""),
    (["-g", "stable/2025.2"], "rhel", "9", "is for Python >=3.10, and it has 3.9"),
    (["-g", "stable/2025.1"], "centos", "9-stream", ""),
    (["-g", "stable/2025.1"], "ubuntu", "resolute", "has no wheel for its Python 3.14"),
    (["-g", "unmaintained/2024.1"], "debian-minimal", "bookworm", ""),
    (["-g", "unmaintained/2024.1"], "debian-minimal", "trixie", "has no wheel for its Python 3.13"),
    (["-g", "unmaintained/2023.1"], "debian-minimal", "bookworm", "has no wheel for its Python 3.11"),
    (["-g", "unmaintained/2023.1"], "ubuntu-minimal", "jammy", ""),
    (["-g", "master"], "ubuntu", "jammy", "is for Python >=3.11, and it has 3.10"),
    (["-g", "my-fix"], "ubuntu", "jammy", ""),  # nobody knows before it is there
]


@pytest.mark.parametrize(("agent", "base", "release", "why"), KNOWN)
def test_what_is_known(agent: list[str], base: str, release: str, why: str) -> None:
    try:
        assert make(*agent, "-i", base, "-d", release).release == release
        told = ""
    except BadValueError as error:
        told = error.what
    assert why in told if why else not told


@pytest.mark.parametrize("agent", AGENTS, ids=" ".join)
@pytest.mark.parametrize(("base", "release"), RELEASES)
def test_every_remedy_is_accepted(base: str, release: str, agent: list[str]) -> None:
    try:
        make("-i", base, "-d", release, *agent)
    except BadValueError as error:
        assert error.what.startswith(f"-d: {base} {release} cannot be used: ")
        for way in ways(error.remedy):
            replaced = {"-i": ["-i", base], "-d": ["-d", release], "agent": agent} | way
            made = make(*(word for words in replaced.values() for word in words))
            assert ["-d", made.release] == replaced["-d"]


def ways(remedy: str) -> list[dict[str, list[str]]]:
    """Read what a remedy names: arguments, by what they take the place of."""
    found: list[dict[str, list[str]]] = []
    for text in re.split(r"; or | or ", re.sub(r"^accepted with this agent: |keep \S+ with ", "", remedy)):
        words = text.split()
        if words[0] == "-i":
            found.append({"-i": words[:2], "-d": words[2:]})
        elif text != "no release known here":
            found.append({"-d" if words[0] == "-d" else "agent": words})
    assert found, remedy
    return found


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_remedy_names_what_the_architecture_has(arch: str) -> None:
    choice = Choice("branch", "unmaintained/2023.1", published=True)
    remedy = rule.remedy(choice, BASES["debian-minimal"], "trixie", arch)
    assert "-i ubuntu -d jammy" in remedy
    assert ("-i centos" in remedy) == (arch == "amd64")


def test_the_variable_that_named_the_branch_is_named() -> None:
    with pytest.raises(BadValueError) as caught:
        make("-i", "ubuntu", "-d", "jammy", DIB_REPOREF_amphora_agent="master")
    assert "DIB_REPOREF_amphora_agent=stable/2026.1" in caught.value.remedy
    assert "-g" not in caught.value.remedy
    with pytest.raises(BadValueError) as caught:  # of a default release the agent's origin is named
        make(DIB_REPOREF_amphora_agent="unmaintained/2024.1")
    assert caught.value.what.startswith("DIB_REPOREF_amphora_agent: debian-minimal trixie cannot be used")


def test_what_ended_is_refused_whatever_the_agent() -> None:
    for agent in ([], ["-p"], ["--no-agent"], ["-g", "my-fix"]):
        with pytest.raises(BadValueError, match="security faults"):
            make(*agent, "-d", "bullseye")


@pytest.mark.parametrize(
    "environ", [{"DIB_REPOLOCATION_upper_constraints": __file__}, {"DIB_REPOREF_octavia_lib": "x"}]
)
def test_what_is_ones_own_is_looked_at_later(environ: dict[str, str]) -> None:
    assert make("-g", "unmaintained/2024.1", "-d", "trixie", **environ).release == "trixie"


def test_the_lock_is_for_the_pythons_that_it_says() -> None:
    """So that a release is refused before any work, and not by the lock."""
    for release in (release for base in BASES.values() for release in base.releases.values()):
        told = rule.refusal(rule.RELEASED, BASES["debian-minimal"], release)
        assert bool(told) == (release.python not in lock.PYTHONS)
    for python in lock.PYTHONS:
        assert lock.select(python, "amd64")


def test_the_installer_runs_on_the_python() -> None:
    """Requires-Python of these wheels: pip 26.3 >=3.10, pip 26.0.1 >=3.9."""
    assert lock.installer("3.9").version == "26.0.1"
    assert {lock.installer(python).version for python in support.PYTHONS[1:]} == {"26.3"}


def test_every_python_was_surveyed() -> None:
    pythons = {BASES[base].releases[name].python for base, name in RELEASES}
    assert pythons <= {*support.PYTHONS}
    for branch in support.read().values():
        assert {*branch.lacking} <= {*branch.pythons}


def test_the_file_is_what_is_read() -> None:
    text = support.FILE.read_text(encoding="ascii")
    assert text.endswith("".join(support.render(branch) for branch in support.read().values()))


def test_the_table_of_the_documentation_is_current() -> None:
    for name, (path, _) in tables.TABLES.items():
        text = (tables.REPOSITORY / path).read_text(encoding="utf-8")
        assert f"<!-- begin {name}: " in text
        assert text == tables.with_table(text, name), f"{path} is out of date; run: make docs"


def test_version_9_has_dhclient() -> None:
    """Version 10 has not; octavia's amphora-agent element says the same of both (pkg-map)."""
    for release, there in (("9-stream", True), ("10-stream", False)):
        wish = make("--no-agent", "-i", "centos", "-d", release)
        assert ("dhcp-client" in packages.wanted(wish)) == there


# -- what is known only when it is here --------------------------------------------------------------------------------


def test_a_branch_for_another_python_names_releases(world: World) -> None:
    world.commit("octavia", setup_cfg=SETUP_CFG.format("octavia").replace(">=3.9", ">=3.14"))
    assert "-d forky" in world.fails().remedy
    assert "no release of this one" in world.fails(releases={}).remedy


def test_no_remedy_leads_back(world: World) -> None:
    """A release with an older Python is named, and in the end there is none."""
    file = "native-1.1.tar.gz"
    add(world.server, file, source(file, "", {"native.c": "int x;"}))
    (world.place / "constraints.txt").write_text(CONSTRAINTS.replace("native===1.0", "native===1.1"))
    assert "-d bookworm" in world.fails().remedy
    assert "-d trixie" not in world.fails().remedy
    remedy = world.fails(releases={"trixie": "3.13", "forky": "3.14"}).remedy
    assert "-d" not in remedy and "no release here has an older Python" in remedy
