"""What all tests share: the real command line in a clean environment, one real image, and an Octavia controller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage import settings
from amphora_mkimage.agent import install, lock

# A shell's background job ignores SIGINT, and so would every program that the tests start and interrupt (execve(2)).
signal.signal(signal.SIGINT, signal.default_int_handler)

Completed = subprocess.CompletedProcess[str]
RunCli = Callable[..., Completed]
#: Variables of the network stay: the machine that runs the tests may need them to reach the archive.
_NETWORK = ("http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that would set a value of ours."""
    ours = {variable.name for setting in settings.SETTINGS for variable in setting.variables} - set(_NETWORK)
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("AMP_", "DIB_", "REG_"))
    }
    return {**env, **(extra or {})}


def cli_argv(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "amphora_mkimage", *map(str, arguments)]


@dataclass(frozen=True)
class Built:
    """The files of one build."""

    qcow2: Path
    tar: Path
    manifest: Path  #: of the qcow2
    tar_manifest: Path
    log: Path
    stderr: str
    report: dict[str, Any]  #: what --json printed


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    """Run ``amphora-mkimage`` with arguments; ``env`` is added to a clean environment."""

    def run(
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        timeout: float = 900,
    ) -> Completed:
        return subprocess.run(
            cli_argv(*arguments),
            env=clean_environment(env),
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def start_cli() -> Callable[..., subprocess.Popen[bytes]]:
    """Start ``amphora-mkimage`` and do not wait; further keywords are Popen's."""

    def start(*arguments: object, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(cli_argv(*arguments), env=clean_environment(env), **more)

    return start


@pytest.fixture(scope="session", autouse=True)
def _as_from_a_terminal() -> Iterator[None]:
    """Have what the tests start end with its terminal, though they may run under nohup(1) themselves.

    A signal that is handled, not ignored, has its default again in the programs that are started (signal(7)).
    """
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The cache of the tests; the user's own by default, so that a developer downloads nothing twice."""
    return Path(os.environ.get("AMPHORA_TEST_CACHE") or "~/.cache/image-create").expanduser()


@pytest.fixture(scope="session")
def built(run_cli: RunCli, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A Debian amphora as qcow2 and tar, built once by the real command line."""
    place = tmp_path_factory.mktemp("built")
    done = run_cli(
        "-i", "debian-minimal", "-t", "qcow2,tar", "-o", place / "amphora", "-w", place, "-c", cache_dir,
        "-l", place / "log", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Built(
        place / "amphora.qcow2",
        place / "amphora.tar",
        place / "amphora.qcow2.manifest.json",
        place / "amphora.tar.manifest.json",
        place / "log",
        done.stderr,
        json.loads(done.stdout),
    )


@pytest.fixture(scope="session")
def built_image(built: Built) -> Path:
    """The qcow2 of :func:`built`."""
    return built.qcow2


@pytest.fixture(scope="session")
def octavia_python(cache_dir: Path) -> Path:
    """A Python with the released octavia, its controller included, all of it as the agent's lock file says."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    agent = install.Agent(version, tuple(lock.select(version, "amd64")))
    place = cache_dir / "lab" / f"octavia-{agent.version}-python{version}-{agent.key[:12]}"
    python = place / "bin/python"
    if (place / "complete").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    requirements = place / "requirements.txt"
    requirements.write_text("".join(f"{package.requirement}\n" for package in agent.installed))
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    # pip's settings for the tests' own environment are not for this one.
    env = {name: value for name, value in os.environ.items() if name not in ("PIP_TARGET", "PIP_CONSTRAINT")}
    subprocess.run([*argv, "--require-hashes", "--requirement", requirements], check=True, env=env)
    (place / "complete").touch()
    return python
