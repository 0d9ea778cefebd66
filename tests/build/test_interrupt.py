"""A build that is killed, however and whenever, leaves no process, mount, output or working directory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from leftover import SECONDS, environ_has, marked, processes, wait_until


def namespace_of(process: Path) -> str:
    try:
        return os.readlink(process / "ns/pid")  # noqa: PTH115 (no path: "pid:[4026531836]")
    except OSError:
        return ""


#: Step at whose beginning the signal comes, seconds into it, further arguments, whether the base is cached.
POINTS = {
    "bootstrap": ("bootstrap", 6.0, (), False),
    "bootstrap on disk": ("bootstrap", 6.0, ("-f",), False),
    "unpack": ("unpack the cached base", 0.4, (), True),
    "unpack on disk": ("unpack the cached base", 0.4, ("-f",), True),
    "configure": ("configure", 0.05, (), True),
    "write the disk": ("write the disk", 1.0, (), True),
    "write the disk on disk": ("write the disk", 1.0, ("-f",), True),
    "write qcow2": ("write qcow2", 0.5, (), True),
    "publish": ("hash and publish", 0.0, ("-f",), True),
}
QUICK = [
    ("bootstrap on disk", signal.SIGKILL),
    ("bootstrap", signal.SIGINT),
    ("unpack on disk", signal.SIGKILL),
    ("write the disk", signal.SIGKILL),
    ("write the disk on disk", signal.SIGINT),
    ("write qcow2", signal.SIGTERM),
]
ALL = [(point, number) for point in POINTS for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("point", "number"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in QUICK)]
)
def test_nothing_is_left(point: str, number: int, start_cli, seed_cache, cache_dir: Path, tmp_path: Path) -> None:
    step, seconds, arguments, cached = POINTS[point]
    cache = cache_dir if cached else seed_cache()
    output, work = tmp_path / "output", tmp_path / "work"
    output.mkdir()
    work.mkdir()
    marker = f"AMPHORA_TEST_MARKER={tmp_path}"
    child = start_cli(
        *(
            "-i",
            "debian-minimal",
            "--no-agent",
            "-t",
            "qcow2,tar",
            "-o",
            output / "a",
            "-w",
            work,
            "-c",
            cache,
            *arguments,
        ),
        env=dict([marker.split("=", 1)]),
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    text = ""
    for line in child.stderr:
        text += line.decode()
        if text.rstrip().endswith(f"] {step}"):
            break
    else:
        pytest.fail(f"the build ended before {step!r}: {text}")
    time.sleep(seconds)
    namespaces = {namespace_of(process) for process in marked(marker.encode())} - {namespace_of(Path("/proc/self")), ""}
    child.send_signal(number)
    rest = child.stderr.read().decode()  # ends when the last process that has it ends
    status = child.wait(SECONDS)
    child.stderr.close()
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130), rest
    if number != signal.SIGKILL:
        assert "error: interrupted" in rest
        assert "Traceback" not in rest
        assert list(work.iterdir()) == []  # an interrupt is orderly: nothing is left when the command returns
    assert wait_until(
        lambda: not any(environ_has(one, marker.encode()) or namespace_of(one) in namespaces for one in processes())
    )
    assert list(output.iterdir()) == []
    assert list(work.iterdir()) == []
    # Of ours: other programs of the host may mount what they like meanwhile.
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    if not cached:
        assert list((cache / "amphora-mkimage/bases").glob("[!.]*")) == []
