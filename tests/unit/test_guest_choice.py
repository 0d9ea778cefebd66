"""``--guest`` on the command line: what is chosen is said, and what it cannot build is refused before any work."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import userns

_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(_UNSHARE, capture_output=True, check=False).returncode != 0,
    reason="needs root and user namespaces",
)
Completed = subprocess.CompletedProcess[str]


def plan(run_cli, place: Path, *arguments: str) -> Completed:
    """The plan of a build that either guest can do, with verdicts of its own."""
    environment = {"XDG_RUNTIME_DIR": str(place), "XDG_CACHE_HOME": str(place / "verdicts")}
    where = ("-o", place / "a", "-w", place / "w", "-c", place / "c")
    return run_cli("--dry-run", "--no-agent", *where, *arguments, env=environment)


@pytest.mark.parametrize("base", ["debian", "fedora", "centos", "rocky", "rhel"])
def test_every_base_that_starts_from_an_image_can_be_built_in_an_appliance(base: str, run_cli, tmp_path: Path) -> None:
    (tmp_path / "own.tar").touch()
    environment = {"DIB_LOCAL_IMAGE": str(tmp_path / "own.tar")}
    done = run_cli("--dry-run", "--no-agent", "--guest", "appliance", "-i", base, "-c", tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\nguest     appliance: asked for\n" in done.stdout


def plan_without_namespaces(run_cli, place: Path, *arguments: str) -> Completed:
    def work() -> Completed:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")  # of this namespace, not of the host
        return plan(run_cli, place, *arguments)

    return userns.run(work)


@pytest.mark.parametrize("guest", ["namespace", "appliance"])
def test_what_is_asked_for_is_in_the_plan(guest: str, run_cli, tmp_path: Path) -> None:
    done = plan(run_cli, tmp_path, "--guest", guest)
    assert done.returncode == 0, done.stderr
    assert f"\nguest     {guest}: asked for\n" in done.stdout
    assert list(tmp_path.iterdir()) == []
    refused = plan(run_cli, tmp_path, "--guest", guest, "-i", "debian", "-a", "arm64")
    assert refused.returncode == (2 if guest == "appliance" else 0)


@needs_namespaces
def test_without_namespaces_the_plan_has_the_appliance(run_cli, tmp_path: Path) -> None:
    done = plan_without_namespaces(run_cli, tmp_path)
    if done.returncode == 2:
        pytest.skip(f"libguestfs does not work here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert "\nguest     appliance: no namespace can be had: " in done.stdout
    assert "user.max_user_namespaces is 0" in done.stdout
    done = plan(run_cli, tmp_path)
    assert "\nguest     namespace: " in done.stdout


@needs_namespaces
def test_what_only_a_namespace_can_build_is_refused_with_what_would_allow_it(run_cli, tmp_path: Path) -> None:
    done = plan_without_namespaces(run_cli, tmp_path, "-i", "debian-minimal")
    assert done.returncode == 2
    assert "user.max_user_namespaces is 0" in done.stderr
    assert "as root: sysctl user.max_user_namespaces=" in done.stderr


@needs_namespaces
def test_a_namespace_that_is_asked_for_is_not_replaced(run_cli, tmp_path: Path) -> None:
    def work() -> Completed:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        where = ("-o", tmp_path / "a", "-w", tmp_path / "w", "-c", tmp_path / "c")
        return run_cli("--guest", "namespace", "-i", "debian-minimal", *where)

    done = userns.run(work)
    assert done.returncode == HostError.status
    assert "this host does not allow user namespaces" in done.stderr
    assert not list(tmp_path.glob("a*"))


@pytest.mark.parametrize(
    ("arguments", "words", "remedy"),
    [
        (("-i", "ubuntu-minimal"), "ubuntu-minimal is bootstrapped", "--guest namespace), or take -i ubuntu"),
        (("-i", "debian-minimal"), "debian-minimal is bootstrapped", "--guest namespace), or take -i debian"),
        (("-i", "debian", "-a", "arm64"), "cannot build for arm64", "--guest namespace)"),
    ],
)
def test_refused(arguments: tuple[str, ...], words: str, remedy: str, run_cli, tmp_path: Path) -> None:
    where = ("-o", tmp_path / "a", "-w", tmp_path / "w", "-c", tmp_path / "c", "-l", tmp_path / "log")
    done = run_cli("--guest", "appliance", *where, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert remedy in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_there_is_no_other_guest(run_cli, tmp_path: Path) -> None:
    done = plan(run_cli, tmp_path, "--guest", "docker")
    assert done.returncode == 3
    assert "auto, namespace, appliance" in done.stderr


# --- an image of one's own: read on this host, without any tree, before there is an appliance -------------------------

_RELEASE = "NAME=Ubuntu\nID=ubuntu\nVERSION_CODENAME={}\n"


def own_image(place: Path, files: dict[str, str], links: dict[str, str]) -> Path:
    with tarfile.open(place / "own.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return place / "own.tar"


STATUS, KEYRING, IDENTITY = "var/lib/dpkg/status", "usr/share/keyrings/k.gpg", "usr/lib/os-release"


@pytest.mark.parametrize(
    ("files", "links", "status", "words"),
    [
        ({"../x": ""}, {}, 1, "'../x': its name climbs out"),
        ({"a/x": ""}, {"a/y": "/etc", "a/y/z": "x"}, 1, "'a/y/z' lies below a symbolic link"),
        ({STATUS: ""}, {}, 1, "the base image lacks one of"),
        ({STATUS: "", KEYRING: "", IDENTITY: _RELEASE.format("jammy")}, {}, 3, "-d noble: the base image is"),
        ({STATUS: "", KEYRING: ""}, {IDENTITY: "/etc/os-release"}, 1, "leads out of it"),
        ({KEYRING: "", IDENTITY: _RELEASE.format("noble")}, {STATUS: "/etc/passwd"}, 1, "leads out of it"),
        ({STATUS: "x" * (65 << 20), KEYRING: "", IDENTITY: _RELEASE.format("noble")}, {}, 1, "is too large"),
    ],
)
def test_an_image_that_is_not_what_it_should_be(
    files: dict[str, str], links: dict[str, str], status: int, words: str, run_cli, tmp_path: Path
) -> None:
    image = own_image(tmp_path, files, links)
    environment = {"DIB_LOCAL_IMAGE": str(image), "BASE_OS_MIRROR": "http://127.0.0.1:9/ubuntu"}
    output, work = tmp_path / "output", tmp_path / "work"
    output.mkdir()
    arguments = ("--guest", "appliance", "--no-agent", "-o", output / "a", "-w", work, "-c", tmp_path / "cache")
    done = run_cli(*arguments, env=environment)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Starting the appliance" not in done.stderr
    assert list(output.iterdir()) == []
    assert not work.exists()


@pytest.mark.parametrize(
    ("files", "links", "status", "words"),
    [
        ({"etc/x": ""}, {}, 1, "the base image lacks one of"),
        ({IDENTITY: "ID=fedora\nVERSION_ID=43\n"}, {}, 3, "-d 44: the base image is"),
        ({"x": ""}, {IDENTITY: "/etc/os-release"}, 1, "leads out of it"),
    ],
)
def test_an_image_of_red_hats_family_is_looked_at_before_there_is_an_appliance(
    files: dict[str, str], links: dict[str, str], status: int, words: str, run_cli, tmp_path: Path
) -> None:
    environment = {"DIB_LOCAL_IMAGE": str(own_image(tmp_path, files, links))}
    where = ("-o", tmp_path / "a", "-w", tmp_path / "w", "-c", tmp_path / "c")
    done = run_cli("--guest", "appliance", "-i", "fedora", "-d", "44", "--no-agent", *where, env=environment)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Starting the appliance" not in done.stderr
    assert not (tmp_path / "w").exists()
