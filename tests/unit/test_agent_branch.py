"""An agent of a branch: real git, real pip, and servers on loopback that have not what is wanted, or break off."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from branch_world import BRANCH, CONSTRAINTS, FETCHED, OCTAVIA, SETUP_CFG, SETUP_PY, World
from fault_server import Fault
from package_index import add, commit, source, wheel

from amphora_mkimage.agent import lock
from amphora_mkimage.agent.install import Agent
from amphora_mkimage.errors import BadValueError


def test_all_that_is_needed_is_fetched_and_nothing_of_it_runs(world: World, tmp_path: Path) -> None:
    """Under the constraints, for the image's Python, of both projects, whatever the newest may be."""
    agent = world.resolve()
    built = {"octavia-18.0.1.dev1.tar.gz", "octavia-lib-18.0.1.dev1.tar.gz"}
    assert {package.file for package in agent.installed} == FETCHED | built
    assert [package.name for package in agent.packages if package not in agent.installed] == ["pip"]
    assert agent.version == "18.0.1.dev1"
    assert not world.ran.exists()
    for package in agent.installed:
        assert world.store.take_wheel(package.sha256, tmp_path / "file")
    check_record(world, agent)
    check_source(world, agent, tmp_path)


def check_record(world: World, agent: Agent) -> None:
    """What went in is recorded."""
    facts = agent.facts
    assert facts["source"] == "branch"
    assert {name: found["commit"] for name, found in facts["commits"].items()} == world.commits
    assert {found["ref"] for found in facts["commits"].values()} == {BRANCH}
    assert facts["constraints"]["sha256"] == hashlib.sha256(CONSTRAINTS.encode()).hexdigest()
    assert {package["file"] for package in facts["packages"]} >= FETCHED
    assert agent.origin.files == {
        "/opt/amphora-agent.gitref": f"{world.commits['octavia']}\n".encode(),
        "/opt/octavia-lib.gitref": f"{world.commits['octavia-lib']}\n".encode(),
        "/opt/upper-constraints.txt": CONSTRAINTS.encode(),
    }


def check_source(world: World, agent: Agent, tmp_path: Path) -> None:
    """The source has what pbr asks of one."""
    (package,) = (package for package in agent.packages if package.name == "octavia-lib")
    assert world.store.take_wheel(package.sha256, tmp_path / "source")
    with tarfile.open(tmp_path / "source") as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive if m.isfile()}
    top = "octavia-lib-18.0.1.dev1"
    assert "\nName: octavia-lib\nVersion: 18.0.1.dev1\n" in texts[f"{top}/PKG-INFO"]
    listed = texts[f"{top}/octavia_lib.egg-info/SOURCES.txt"].splitlines()
    assert sorted(listed) == ["data/template.j2", "more", "requirements.txt", "setup.cfg", "setup.py"]
    assert {f"{top}/{name}" for name in listed} < texts.keys()


def test_the_next_build_asks_for_commits_and_constraints_only(world: World) -> None:
    first = world.resolve()
    world.server.seen.clear()
    again = world.resolve()
    assert world.server.seen == []
    assert again == first
    assert again.key == first.key
    # A file that is gone from the cache, or damaged, is fetched again; a checkout too, which no index has.
    for package in (again.packages[0], again.installed[-1]):
        (world.store.wheels / package.sha256).write_bytes(b"x")
        assert world.resolve().packages == first.packages
    assert len(world.warnings) == 2


def test_the_key_depends_on_commits_and_constraints(world: World) -> None:
    keys = {world.resolve().key}
    for project in ("octavia", "octavia-lib"):
        world.commit(project, more="y")
        keys.add(world.resolve().key)
    world.server.files.pop("/files/one-2.0-py3-none-any.whl")
    Path(world.environ["DIB_REPOLOCATION_upper_constraints"]).write_text(CONSTRAINTS + "three===3.0\n")
    files = [*world.place.glob("cache/amphora-mkimage/locks/*")]
    keys.add(world.resolve().key)
    assert len(keys) == 3  # other constraints that choose the same are the same environment,
    assert len([*world.place.glob("cache/amphora-mkimage/locks/*")]) == len(files) + 1  # but they are looked at


def test_tags_and_commits(world: World) -> None:
    tag = world.resolve("18.0.0")
    assert tag.version == "18.0.0"
    world.environ["DIB_REPOREF_octavia_lib"] = world.commits["octavia-lib"]
    agent = world.resolve(world.commits["octavia"])
    assert agent.facts["commits"]["octavia"]["commit"] == world.commits["octavia"]
    assert agent.version == "18.0.1.dev1"


@pytest.mark.parametrize("missing", ["DIB_REPOREF_octavia_lib", "DIB_REPOLOCATION_upper_constraints"])
def test_what_goes_with_a_commit_is_not_guessed(world: World, missing: str) -> None:
    world.environ["DIB_REPOREF_octavia_lib"] = world.commits["octavia-lib"]
    del world.environ[missing]
    with pytest.raises(BadValueError) as caught:
        world.resolve(world.commits["octavia"])
    assert caught.value.what.startswith("-g: ")
    assert missing in caught.value.remedy


# -- what does not exist -----------------------------------------------------------------------------------------------


def test_a_branch_that_does_not_exist(world: World) -> None:
    world.environ["DIB_REPOLOCATION_upper_constraints"] = f"{world.server.url}/gone/upper-constraints.txt"
    error = world.fails("unmaintained/2026.1")
    assert error.what.startswith("octavia has no branch or tag unmaintained/2026.1")
    assert BRANCH in error.remedy and "-g" in error.remedy


def test_a_branch_that_octavia_lib_does_not_have(world: World) -> None:
    commit(world.place / "octavia", {"x": "x"}, branch="mine")
    error = world.fails("mine")
    assert error.what.startswith("octavia-lib has no branch or tag mine")
    assert "DIB_REPOREF_octavia_lib" in error.remedy
    world.environ["DIB_REPOREF_octavia_lib"] = BRANCH
    assert world.resolve("mine").facts["commits"]["octavia-lib"]["ref"] == BRANCH


@pytest.mark.parametrize("project", ["octavia", "octavia-lib"])
def test_a_repository_that_does_not_exist(world: World, project: str) -> None:
    variable = f"DIB_REPOLOCATION_{'amphora_agent' if project == 'octavia' else 'octavia_lib'}"
    world.environ[variable] = f"{world.server.url}/nothing"
    error = world.fails()
    assert error.what.startswith(f"cannot fetch {project} from {world.server.url}/nothing")
    assert variable in error.remedy
    assert error.tail


def test_a_repository_of_something_else(world: World) -> None:
    world.environ["DIB_REPOLOCATION_amphora_agent"] = world.environ["DIB_REPOLOCATION_octavia_lib"]
    assert "is octavia-lib and not octavia" in world.fails().what


def test_constraints_that_do_not_exist(world: World) -> None:
    world.environ["DIB_REPOLOCATION_upper_constraints"] = f"{world.server.url}/gone/upper-constraints.txt"
    error = world.fails()
    assert error.what == f"the constraints {world.server.url}/gone/upper-constraints.txt do not exist"
    assert "DIB_REPOLOCATION_upper_constraints" in error.remedy and "ended" in error.remedy


@pytest.mark.parametrize("text", ["<!DOCTYPE html>\n<title>Log in</title>\n", "", "\n# nothing\n"])
def test_constraints_that_are_none(world: World, text: str) -> None:
    world.server.files["/constraints"] = text.encode()
    world.environ["DIB_REPOLOCATION_upper_constraints"] = f"{world.server.url}/constraints"
    assert "is not a file of constraints" in world.fails().what


def test_constraints_by_url(world: World) -> None:
    first = world.resolve()
    world.server.files["/constraints"] = CONSTRAINTS.encode()
    world.environ["DIB_REPOLOCATION_upper_constraints"] = f"{world.server.url}/constraints?token=sesame"
    agent = world.resolve()
    assert agent.packages == first.packages
    assert "sesame" not in str(agent.facts)


# -- what cannot be had ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/files/two-2.0-cp313-cp313-manylinux_2_28_x86_64.whl", Fault(cut=10)),
        ("/files/pyroute2-0.9-py3-none-any.whl", Fault(statuses=[503] * 9)),
        ("/files/WSME-0.12.tar.gz", Fault(cut=10)),
        ("/simple/three/", Fault(statuses=[404] * 9)),
        ("/simple/pbr/", Fault(cut=10, headers={"Content-Type": "text/html"})),
    ],
)
def test_an_index_that_breaks_off(world: World, path: str, fault: Fault) -> None:
    world.server.faults[path] = fault
    error = world.fails()
    assert error.what.startswith("cannot fetch the amphora agent's packages: ")
    assert error.tail


def test_an_index_that_does_not_answer_is_not_asked_for_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    world.fails()
    assert world.log.getvalue().count(b"pip download") <= 2


def test_an_index_that_serves_another_content(world: World) -> None:
    world.server.files["/files/three-3.0-py3-none-any.whl"] += b"x"
    assert "HASHES" in "\n".join(world.fails().tail).upper()


def test_what_needs_a_compiler_is_refused_by_name(world: World) -> None:
    file = "native-1.1.tar.gz"
    add(world.server, file, source(file, "", {"native.c": "int x;"}))
    constraints = Path(world.environ["DIB_REPOLOCATION_upper_constraints"])
    constraints.write_text(CONSTRAINTS.replace("native===1.0", "native===1.1"))
    error = world.fails()
    assert error.what == "native 1.1 has no wheel for Python 3.13 on amd64, and needs a compiler (native.c)"
    assert "-d" in error.remedy


def test_a_source_of_python_only_will_do(world: World) -> None:
    for file in ("native-1.1.tar.gz", "three-3.1.zip"):
        texts = {
            f"{file.partition('-')[0]}.egg-info/requires.txt": "two\n\n[x]\nnot-there\n\n[:python_version<'3']\nold\n"
        }
        add(world.server, file, source(file, SETUP_PY.format(str(world.ran)), texts))
    constraints = Path(world.environ["DIB_REPOLOCATION_upper_constraints"])
    constraints.write_text(CONSTRAINTS.replace("native===1.0", "native===1.1") + "three===3.1\n")
    assert {p.file for p in world.resolve().packages} > {"native-1.1.tar.gz", "three-3.1.zip"}
    assert not world.ran.exists()


def test_a_module_that_only_the_distribution_has(world: World) -> None:
    """netifaces never got wheels for today's Python; octavia needs it until 2024.1."""
    file = "netifaces-0.11.0.tar.gz"
    add(world.server, file, source(file, "", {"netifaces.c": "int x;"}))
    world.commit("octavia", requirements_txt=f"{OCTAVIA}netifaces\n")
    assert "netifaces 0.11.0 has no wheel" in world.fails(debian=False).what
    agent = world.resolve()
    assert agent.modules == ("netifaces",)
    assert "netifaces" not in {package.name for package in agent.packages}
    assert world.resolve() == agent
    assert agent.facts["modules_of_the_distribution"] == ["netifaces"]


def test_versions_that_contradict_each_other(world: World) -> None:
    world.commit("octavia-lib", requirements_txt="one>=2\n")
    assert world.fails().what == "octavia-lib wants one>=2, and there is 1.5"


def test_an_octavia_lib_that_is_too_old(world: World) -> None:
    world.commit("octavia", requirements_txt=OCTAVIA.replace("octavia-lib>=3.0", "octavia-lib>=19"))
    assert world.fails().what == "octavia wants octavia-lib>=19, and there is 18.0.1.dev1"


@pytest.mark.parametrize(
    "files",
    [
        {"setup_cfg": SETUP_CFG.format("octavia").replace(">=3.9", ">=3.14")},
        {"pyproject_toml": "[project]\nname = 'octavia'\nrequires-python = '>=3.14'\n", "setup_cfg": ""},
        {"setup_cfg": "[metadata]\nname = octavia\n[options]\npython_requires = !=3.13.*\n"},
    ],
)
def test_a_branch_for_another_python(world: World, files: dict[str, str]) -> None:
    world.commit("octavia", **files)
    error = world.fails()
    assert error.what.startswith(f"octavia {BRANCH} is for Python ")
    assert error.what.endswith("and the image has 3.13")
    assert not world.server.seen  # before anything is fetched


def test_dependencies_in_pyproject(world: World) -> None:
    text = "[build-system]\nrequires = ['builder']\n[project]\nname = 'octavia'\ndependencies = ['three']\n"
    world.commit("octavia", pyproject_toml=text, setup_cfg="[metadata]\nname = other\n")
    content = wheel("builder-1-py3-none-any.whl")
    add(world.server, "builder-1-py3-none-any.whl", content)
    names = {package.name for package in world.resolve().installed}
    assert names > {"three", "builder"}
    assert not names & {"native", "wsme"}


def test_the_lock_has_the_installer_for_every_python() -> None:
    assert len([package for package in lock.read() if package.name == lock.INSTALLER]) == 1
