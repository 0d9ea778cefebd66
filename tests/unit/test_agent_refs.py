"""Refs as Octavia's README, its CI and people with a clone name them: real git, on repositories of this test."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from branch_world import BRANCH, World
from make_request import make
from package_index import commit, serve_repository
from package_index import git as run_git

from amphora_mkimage.agent import git, refs
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError

CHANGE = "refs/changes/40/674140/7"


@pytest.fixture
def change(world: World) -> str:
    """A commit that is on no branch: a change under review; octavia-lib and constraints are named besides."""
    place = world.place / "octavia"
    made = commit(place, {"change": "x"}, branch="review")
    run_git(place, "update-ref", CHANGE, made)
    run_git(place, "checkout", "--quiet", BRANCH)
    run_git(place, "branch", "--quiet", "-D", "review")
    world.environ["DIB_REPOREF_octavia_lib"] = BRANCH
    return made


def taken(world: World, ref: str) -> str:
    """Find what a build would take, and fetch it."""
    branch = make(*(("-g", ref) if ref else ()), **world.environ).branch
    assert branch is not None
    console = Console(io.StringIO())
    found = git.find(branch.agent, console)
    assert git.find(branch.lib, console).commit == world.commits["octavia-lib"]
    with tempfile.TemporaryDirectory(dir=world.place) as place:
        archive, _ = git.fetch(found, Path(place), console)
        with tarfile.open(archive) as files:
            assert files.pax_headers["comment"] == found.commit  # git-archive(1)
    return found.commit


def refused(world: World, ref: str) -> MkimageError:
    with pytest.raises(MkimageError) as caught:
        taken(world, ref)
    return caught.value


def test_refs_of_a_clone(world: World, change: str) -> None:
    assert taken(world, CHANGE) == change
    assert taken(world, change[:9]) == change
    assert taken(world, "HEAD") == world.commits["octavia"]
    assert taken(world, f"refs/heads/{BRANCH}") == world.commits["octavia"]


def test_a_change_of_a_server(world: World, change: str) -> None:
    url = serve_repository(world.server, world.place / "octavia", "/octavia")
    world.environ["DIB_REPOLOCATION_amphora_agent"] = url
    assert taken(world, CHANGE) == change
    remedy = refused(world, change[:9]).remedy
    assert "40 digits" in remedy and "-g" in remedy


def test_a_clone_without_branches_of_its_own(world: World) -> None:
    """As `git clone` leaves it: of all branches but one it has what is called origin/NAME only."""
    run_git(world.place / "octavia", "checkout", "--quiet", "-B", "other")
    for project in ("octavia", "octavia-lib"):
        run_git(world.place, "clone", "--quiet", project, f"{project}-clone")
        variable = f"DIB_REPOLOCATION_{'amphora_agent' if project == 'octavia' else 'octavia_lib'}"
        world.environ[variable] = str(world.place / f"{project}-clone")
    assert "refs/heads/stable" not in run_git(world.place / "octavia-clone", "show-ref")
    assert taken(world, BRANCH) == world.commits["octavia"]
    assert taken(world, f"origin/{BRANCH}") == world.commits["octavia"]
    # Where both are there, the clone's own is another one.
    mine = commit(world.place / "octavia-clone", {"mine": "x"}, branch=BRANCH)
    assert taken(world, BRANCH) == mine
    assert taken(world, f"origin/{BRANCH}") == world.commits["octavia"]


@pytest.mark.parametrize("ref", [CHANGE, "HEAD", "0123456789", "0" * 40])
def test_what_goes_with_them_is_not_guessed(world: World, ref: str) -> None:
    with pytest.raises(BadValueError) as caught:
        taken(world, ref)
    assert caught.value.what == f"-g: what goes with {ref} cannot be known"
    assert "DIB_REPOREF_octavia_lib" in caught.value.remedy and "master" in caught.value.remedy


def test_the_variable_that_was_used_is_named(world: World) -> None:
    world.environ["DIB_REPOREF_amphora_agent"] = "unmaintained/2026.1"
    error = refused(world, "")
    assert error.remedy == f"it has {BRANCH}: name it with DIB_REPOREF_amphora_agent"


def test_an_abbreviation_that_is_none(world: World) -> None:
    world.environ["DIB_REPOREF_octavia_lib"] = BRANCH
    error = refused(world, "0123456")
    assert error.what.startswith("octavia has no branch, tag or commit 0123456")
    assert error.remedy == "correct -g"


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("refs/changes/40/674140/7", []),  # not 17.0.0, because of its 7
        ("stable/2024.1", ["unmaintained/2024.1"]),
        ("origin/stable/2024.1", ["unmaintained/2024.1"]),
        ("2025.1", ["stable/2025.1"]),
        ("stabel/2025.1", ["stable/2025.1"]),
        ("mater", ["master"]),
        ("17.0", ["17.0.0"]),
        ("nothing", []),
    ],
)
def test_what_may_have_been_meant(ref: str, found: list[str]) -> None:
    names = ("master", "stable/2025.1", "unmaintained/2024.1")
    listed = {f"refs/heads/{name}": "1" for name in names}
    listed |= {f"refs/tags/{name}": "1" for name in ("17.0.0", "17.0.0^{}", "7.0.0", "7.0.0.0rc1")}
    assert refs.similar(ref, listed | {"HEAD": "1"}) == found


def test_no_configuration_of_where_the_user_stands(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    commit(here, {"x": "x"})
    run_git(here, "config", "url.file:///nonexistent/.insteadOf", tmp_path.as_uri())
    monkeypatch.chdir(here)
    assert taken(world, BRANCH) == world.commits["octavia"]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a repository of another user")
def test_a_clone_of_another_user(world: World) -> None:
    """Root is refused too, but where sudo says that he is that user (git-config(1), safe.directory)."""
    subprocess.run(["chown", "-R", "12345", world.place / "octavia"], check=True)
    error = refused(world, BRANCH)
    assert error.what.endswith("the clone belongs to another user")
    place = world.place / "octavia"
    assert error.remedy.startswith("build as its owner, or trust it: git config --global --add safe.directory ")
    assert str(place) in error.remedy and "network" not in error.remedy
    world.environ["DIB_REPOREF_octavia_lib"] = BRANCH
    error = refused(world, world.commits["octavia"][:9])
    assert error.what.endswith("the clone belongs to another user")
