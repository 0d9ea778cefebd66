"""What is generated from the command line is committed as it is generated now; what is linked to exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from amphora_mkimage import cli, completion, manpage, settings
from amphora_mkimage.bases import BASES
from amphora_mkimage.probe.tools import TOOLS
from amphora_mkimage.verify.checks import CHECKS

REPOSITORY = Path(__file__).parents[2]
REGENERATE = "out of date; run: .venv/bin/python -m amphora_mkimage.manpage --write"


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_table_of_options_is_current() -> None:
    text = read(manpage.OPTIONS)
    assert text.count(manpage.TABLE_BEGIN) == text.count(manpage.TABLE_END) == 1
    assert text == manpage.with_table(text), f"{manpage.OPTIONS} is {REGENERATE}"


def test_man_page_is_current() -> None:
    assert read(manpage.MAN_PAGE) == manpage.man_page(), f"{manpage.MAN_PAGE} is {REGENERATE}"


def test_completion_is_current() -> None:
    assert read(manpage.COMPLETION) == completion.script(), f"{manpage.COMPLETION} is {REGENERATE}"


def test_they_are_installed_where_they_are_looked_for() -> None:
    """bash-completion tries NAME.bash, man NAME.1."""
    installed = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["data-files"]
    assert installed == {
        "share/man/man1": [manpage.MAN_PAGE],
        "share/bash-completion/completions": [manpage.COMPLETION],
    }
    assert Path(manpage.MAN_PAGE).name == "amphora-mkimage.1"
    assert Path(manpage.COMPLETION).name == "amphora-mkimage.bash"


def test_every_flag_and_variable_is_documented() -> None:
    table, page = manpage.markdown(), manpage.man_page()
    for setting in settings.SETTINGS:
        for flag in setting.flags:
            assert f"`{flag}`" in table
            assert f"\\fB{manpage.escape(flag)}\\fR" in page
        for variable in setting.variables:
            assert f"`{variable.name}`" in table
            assert f"\\fB{variable.name}\\fR" in page


def test_make_installs_every_tool_that_check_looks_for() -> None:
    """Essential packages (deb-policy 3.8) and apt are on every host that has make and git."""
    listed = {line.split()[0] for line in read("bindep.txt").splitlines() if line and not line.startswith("#")}
    assert {tool.package for tool in TOOLS} - {"apt", "coreutils", "dpkg"} <= listed
    assert {base.keyring_package.split()[0] for base in BASES.values() if not base.dnf} <= listed


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("-s", "\\-s"),
        (".sha256 and ~/x", "\\&.sha256 and \\(ti/x"),
        ("'quoted' \\ \"text\"", "\\(aqquoted\\(aq \\e \\(dqtext\\(dq"),
    ],
)
def test_escape(text: str, roff: str) -> None:
    assert manpage.escape(text) == roff


def test_no_generated_line_is_an_unknown_request() -> None:
    known = {"TH", "SH", "SS", "TP", "PP", "B", "BR", "I", "IR", "RB", "RI", "br", "EX", "EE", '\\"'}
    requests = {line[1:].split(" ")[0] for line in manpage.man_page().splitlines() if line.startswith((".", "'"))}
    assert requests <= known


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_complaint() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=manpage.man_page(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["v"], ["verify"]),
        (["--dry"], ["--dry-run"]),
        (["build", "-t", "q"], ["qcow2"]),
        (["-i", "debian-"], ["debian-minimal"]),
        (["boot", "--u"], ["--uefi"]),
        (["verify", "--root-password", "l"], ["locked"]),
        (["-d", "book"], ["bookworm"]),
        (["-i", "debian-minimal", "-d", "tr"], ["trixie"]),
        (["-d", "busta"], []),
        (["-i", "centos-"], []),
        (["-t", "qcow2,"], ["qcow2,qcow2", "qcow2,raw", "qcow2,vhd", "qcow2,tar"]),
        (["build", "-t", "qcow2,raw,t"], ["qcow2,raw,tar"]),
        (["--arch", "=", "a"], ["amd64", "armhf", "arm64", "aarch64"]),
        (["boot", "--arch", "=", "i"], ["i386"]),
        (["--guest", "="], ["auto", "namespace", "appliance"]),
        (["-k", ""], []),
        (["-g", "/etc/host"], []),
        (["-l", "/etc/hostn"], ["/etc/hostname"]),
        (["-o", "/etc/hostn"], ["/etc/hostname"]),
        (["-c", "/etc/hostn"], []),
        (["-c", "/us"], ["/usr"]),
        (["verify", "/etc/hostn"], ["/etc/hostname"]),
        (["-i", "debian", "/etc/hostn"], []),
        (["-s", ""], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    program = (
        f'{completion.script()}\nCOMP_WORDS=(amphora-mkimage "$@") COMP_CWORD=$#\n'
        '_amphora_mkimage\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", program, "bash", *words], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (expected, "")


def documents() -> list[Path]:
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_commands_of_the_readme_exist() -> None:
    found = re.findall(r"^(?:\$ )?amphora-mkimage +(.*)$", read("README.md"), flags=re.MULTILINE)
    assert found
    flags = {name: set(completion.command_parser(name)._option_string_actions) for name in cli.COMMANDS}
    for line in found:
        words = line.split()
        command = words[0] if words[0] in cli.COMMANDS else "build"
        unknown = {word for word in words if re.match(r"--?[a-z]", word)} - flags[command]
        assert not unknown, line


@pytest.mark.parametrize(
    ("heading", "least", "distributions"),
    [("## Left out", 20, ("debian", "ubuntu")), ("### Of Red Hat's family", 15, ("redhat", "fedora"))],
)
def test_left_out_packages_are_left_out(heading: str, least: int, distributions: tuple[str, ...]) -> None:
    table = read("docs/packages.md").partition(f"{heading}\n")[2].partition("\n#")[0]
    left_out = {name for row in re.findall(r"^\| ([^|]+) \|", table, flags=re.MULTILINE) for name in row.split(", ")}
    left_out = {name.strip(" `") for name in left_out}
    assert len(left_out) > least
    for distribution in distributions:
        lists = tomllib.loads(read(f"package_lists/{distribution}.toml"))
        taken = {
            package for group in lists.values() if isinstance(group, dict) for package in group.get("packages", ())
        }
        assert not left_out & taken


def test_every_check_of_verify_is_documented() -> None:
    rows = re.findall(r"^\| ([a-z]+\.[a-z-]+) \| (.+) \|$", read("docs/verify.md"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == [check.id for check in CHECKS]
