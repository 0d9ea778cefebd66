"""Which guest is chosen: by trial, kept until something changes; and what the appliance's network needs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, HostError
from amphora_mkimage.guest import choose, userns
from amphora_mkimage.guest.choose import Choice
from amphora_mkimage.probe import guests
from amphora_mkimage.probe.outcome import Result

_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(_UNSHARE, capture_output=True, check=False).returncode != 0,
    reason="needs root and user namespaces",
)


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@needs_namespaces
def test_a_namespace_is_preferred_and_the_verdict_is_kept(console: Console, tmp_path: Path) -> None:
    first = choose.choose("auto", console)
    assert first.kind == "namespace"
    assert first.reason
    assert "\n" not in str(first)
    kept = tmp_path / "amphora-mkimage/guest.json"
    text = kept.read_text()
    kept.write_text(text.replace("65536", "kept"))  # a different word comes back: so nothing was tried again
    assert "kept" in choose.choose("auto", console).reason


def appliance_is_chosen(change: Callable[[], Choice], console: Console) -> Choice:
    """Choose here, where it is a namespace, then where something was changed; gives that choice."""
    assert choose.choose("auto", console).kind == "namespace"
    try:
        choice = userns.run(change)
    except HostError as error:
        pytest.skip(f"libguestfs does not work here: {error}")
    assert choice.kind == "appliance"
    return choice


@needs_namespaces
def test_without_namespaces_it_is_the_appliance_whatever_was_kept_before(console: Console) -> None:
    def without() -> Choice:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")  # of this namespace, not of the host
        return choose.choose("auto", console)

    choice = appliance_is_chosen(without, console)
    assert "user.max_user_namespaces is 0" in choice.reason


@needs_namespaces
def test_a_verdict_holds_in_containers_of_the_same_options_only(console: Console) -> None:
    def masked() -> Choice:
        userns.mount("proc", Path("/proc"), "proc")
        userns.mount("tmpfs", Path("/proc/tty"), "tmpfs")
        return choose.choose("auto", console)

    choice = appliance_is_chosen(masked, console)
    assert "cannot mount proc" in choice.reason


@needs_namespaces
def test_a_host_without_either_says_both_reasons_and_keeps_no_verdict(console: Console, tmp_path: Path) -> None:
    def bare() -> Choice:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        for place in ("/boot", "/lib/modules"):  # as in a container
            if Path(place).is_dir():
                userns.mount("tmpfs", Path(place), "tmpfs")
        return choose.choose("auto", console)

    with pytest.raises(HostError, match=r"namespace .* nor in an appliance") as caught:
        userns.run(bare)
    assert "sysctl user.max_user_namespaces" in caught.value.remedy
    assert not (tmp_path / "amphora-mkimage/guest.json").exists()


def test_what_is_asked_for_is_believed(console: Console) -> None:
    assert choose.choose("namespace", console) == Choice("namespace", "asked for")
    assert choose.choose("appliance", console) == Choice("appliance", "asked for")
    with pytest.raises(BadValueError, match="docker") as caught:
        choose.choose("docker", console)
    assert "auto, namespace, appliance" in caught.value.remedy


# --- passt: programs that stand in for it, because libguestfs here is older than its use of it -----------------------

_GOOD = """\
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[sys.argv.index("--socket") + 1])
server.listen()
if os.fork() == 0:
    os.setsid()
    for fd in (0, 1, 2):
        os.close(fd)
    server.accept()
"""
_DENIED = 'import sys; sys.exit("Couldn\'t open PID file: Permission denied")'


def stand_in(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = directory / "passt"
    program.write_text(f"#!{sys.executable}\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_passt_that_is_denied_is_named_with_its_remedy(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, _DENIED, monkeypatch)
    outcome = guests.passt("1.52.0", console)
    assert outcome.result == Result.LIMITED
    assert "Permission denied" in outcome.reason
    assert "remove the package passt" in outcome.remedy
    assert guests.passt("1.48.6", console).result == Result.OK  # which does not use it


def test_passt_that_starts(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, _GOOD, monkeypatch)
    assert guests.passt("1.52.0", console).reason == "passt"


def test_without_passt_it_is_not_missed(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert guests.passt("1.56.0", console).reason == "qemu's own"
