"""What ``check`` finds of tools, and how probes are tried: with a deadline, in a process of their own."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.probe import tools
from amphora_mkimage.probe.command import Check, blockers, probes, render
from amphora_mkimage.probe.outcome import Need, Outcome, Result
from amphora_mkimage.probe.trial import attempt

TOOLS = {tool.name: tool for tool in tools.TOOLS}


# --- tools -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mmdebstrap", "apt-get", "dpkg-deb", "tar", "mcopy", "qemu-img", "openssl"])
def test_a_missing_tool(name: str, farm: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    (farm / name).unlink(missing_ok=True)
    monkeypatch.setenv("PATH", str(farm))
    outcome = TOOLS[name].probe(console)
    assert outcome == Outcome(Result.MISSING, f"{name} is not installed", f"install the package {TOOLS[name].package}")


@pytest.mark.parametrize("name", ["xz", "bzip2", "sqfs2tar", "gpg"])
def test_a_missing_tool_that_only_some_base_images_need(
    name: str, farm: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    (farm / name).unlink()
    monkeypatch.setenv("PATH", str(farm))
    outcome = TOOLS[name].probe(console)
    assert outcome.result == Result.LIMITED
    assert outcome.reason.startswith(f"{name} is not installed: no base images")
    assert TOOLS[name].package in outcome.remedy


@pytest.mark.parametrize("name", ["mke2fs", "qemu-img", "sfdisk", "mkfs.vfat", "tar"])
def test_a_tool_that_does_not_do_its_work(
    name: str, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / name
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\necho 'Bad option(s) specified: assume_storage_prezeroed' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    outcome = TOOLS[name].probe(console)
    assert outcome.result == Result.MISSING
    assert "Bad option(s) specified" in outcome.reason
    assert outcome.remedy


@pytest.mark.parametrize("name", ["sfdisk", "qemu-system-x86_64"])
def test_a_tool_that_does_not_even_read(
    name: str, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).symlink_to("/bin/false")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    outcome = TOOLS[name].probe(console)  # whether our write or its end comes first is chance
    assert outcome.result == Result.MISSING
    assert outcome.remedy


def test_a_missing_keyring_is_a_limit_as_long_as_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: probe(Console(io.StringIO())) for name, probe in tools.keyrings()}
    apt = [base for base in tools.BASES.values() if not base.dnf]
    there = [base for base in apt if Path(base.keyring).exists()]
    for base in apt:
        expected = Result.OK if base in there else Result.LIMITED if there else Result.MISSING
        assert found[f"{base.distribution} keyring"].result == expected
        assert expected == Result.OK or base.keyring_package in found[f"{base.distribution} keyring"].remedy


# --- machinery ---------------------------------------------------------------------------------------------------


def test_a_probe_that_breaks_is_reported_and_the_next_one_runs(console: Console) -> None:
    def broken(_console: Console) -> Outcome:
        raise ZeroDivisionError("by nothing")

    def lacking(_console: Console) -> Outcome:
        raise HostError("no such thing", "get one")

    rows = [Check("a", (Need.BUILD,), broken), Check("b", (Need.BOOT,), lacking)]
    first, second = probes(rows, console)
    assert first.result == Result.FAILED
    assert "ZeroDivisionError: by nothing" in first.reason
    assert (second.result, second.reason, second.remedy) == (Result.MISSING, "no such thing", "get one")
    assert blockers([first, second], Need.BUILD) == ["a"]
    assert blockers([first, second], Need.BOOT) == ["b"]
    assert render(second).splitlines()[1].strip() == "what to do: get one"


def test_a_trial_that_hangs_ends_with_what_it_started(tmp_path: Path) -> None:
    def hang() -> None:
        process.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"], Console(io.StringIO()), what="sleep")

    with pytest.raises(MkimageError, match="did not end within 1 s"):
        attempt(hang, 1)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_trial_that_cannot_be_interrupted_is_killed() -> None:
    def stubborn() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(1000)

    with pytest.raises(MkimageError, match="did not end within 0 s"):
        attempt(stubborn, 0.1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_trial_that_crashes_is_told_with_what_it_printed() -> None:
    def crash() -> None:
        os.write(2, b"last words\n")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(MkimageError, match="SIGKILL") as caught:
        attempt(crash, 60)
    assert "last words" in caught.value.tail


def test_what_a_trial_returns_and_raises_comes_back() -> None:
    assert attempt(lambda: {"pid": os.getpid()}, 60)["pid"] != os.getpid()
    with pytest.raises(OSError, match="No such file") as caught:
        attempt(lambda: os.open("/nonexistent", os.O_RDONLY), 60)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(RuntimeError, match="KeyError"):
        attempt(lambda: {}["x"], 60)


def test_a_missing_pip_limits_what_can_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tools.pip(Console(io.StringIO())).result is Result.OK
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = tools.pip(Console(io.StringIO()))
    assert outcome.result is Result.LIMITED
    assert "--no-agent" in outcome.remedy
