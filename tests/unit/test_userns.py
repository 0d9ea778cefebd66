"""Real namespaces: what comes back, and that nothing stays."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, DefectError, MkimageError
from amphora_mkimage.guest import userns


def test_the_result_comes_back() -> None:
    assert userns.run(lambda: {"pid": os.getpid(), "uid": os.getuid(), "data": "x" * 1_000_000}) == {
        "pid": 1,
        "uid": 0,
        "data": "x" * 1_000_000,
    }


def test_our_errors_come_back_as_they_were() -> None:
    def fail() -> None:
        raise BadValueError("what", "remedy", tail=("a", "b"), log="/log", trace="where")

    with pytest.raises(BadValueError) as caught:
        userns.run(fail)
    error = caught.value
    assert (error.what, error.remedy, error.tail) == ("what", "remedy", ("a", "b"))
    assert (error.log, error.trace) == ("/log", "where")


def test_a_failed_system_call_is_explained() -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    with pytest.raises(MkimageError, match="No space left on device: /some/file") as caught:
        userns.run(fail)
    assert "free some space" in caught.value.remedy


def test_a_killed_child_is_an_error() -> None:
    with pytest.raises(MkimageError, match="killed"):
        userns.run(lambda: os._exit(9))


def test_a_defect_is_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Its traceback is for the log, not for the terminal."""

    def defect() -> None:
        raise ZeroDivisionError("of ours")

    with pytest.raises(DefectError, match=r"ZeroDivisionError: of ours") as caught:
        userns.run(defect)
    assert "in defect" in caught.value.trace
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [lambda: None, SystemExit(3)], ids=["a value that cannot be sent", "an exit"])
def test_the_caller_always_has_an_answer(value: object, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> object:
        if isinstance(value, BaseException):
            raise value
        return value

    with pytest.raises(DefectError):
        userns.run(work)
    assert capfd.readouterr() == ("", "")


def test_a_broken_pipe_inside_is_not_the_caller_s() -> None:
    def work() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(MkimageError, match="Broken pipe"):
        userns.run(work)


def test_the_kernel_kills_what_is_inside_first() -> None:
    here = int(Path("/proc/self/oom_score_adj").read_text())
    inside = userns.run(lambda: int(Path("/proc/self/oom_score_adj").read_text()))
    assert inside == min(1000, here + 500)
    assert int(Path("/proc/self/oom_score_adj").read_text()) == here


def test_real_ids() -> None:
    """Files of other owners can be made, which a map of one id does not allow."""

    def change(path: str) -> tuple[int, int]:
        Path(path).touch()
        os.chown(path, 101, 65534)
        status = Path(path).stat()
        return status.st_uid, status.st_gid

    def work() -> tuple[int, int]:
        userns.mount("tmpfs", Path("/mnt"), "tmpfs")
        return change("/mnt/file")

    assert userns.run(work) == (101, 65534)
    assert not Path("/mnt/file").exists()


def test_mounts_stay_inside(tmp_path: Path) -> None:
    def work() -> bool:
        userns.mount("tmpfs", tmp_path, "tmpfs")
        (tmp_path / "inside").touch()
        mounted = str(tmp_path) in Path("/proc/self/mounts").read_text()
        userns.unmount(tmp_path)
        gone = not (tmp_path / "inside").exists()
        userns.mount("tmpfs", tmp_path, "tmpfs")  # stays, for the namespace's end
        return mounted and gone

    assert userns.run(work)
    # Not compared as a whole: other programs of the host may mount what they like meanwhile.
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_a_failed_mount_says_which(tmp_path: Path) -> None:
    with pytest.raises(MkimageError, match="cannot mount"):
        userns.run(lambda: userns.mount("x", tmp_path, "nosuchfs"))


def test_without_network() -> None:
    def work() -> list[str]:
        userns.without_network()
        return [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]

    # /proc/net is that of the process (proc(5)), so a look at it needs no new mount.
    assert userns.run(work) == ["lo"]


def processes_with(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in environ:
                found.append(int(entry.name))
    return found


def test_the_end_is_called_whatever_happened(tmp_path: Path) -> None:
    for number, work in enumerate((lambda: None, lambda: 1 / 0)):
        mark = tmp_path / str(number)
        with contextlib.suppress(MkimageError):
            userns.run(work, on_end=mark.touch)
        assert mark.exists()


def test_what_the_function_starts_dies_with_it() -> None:
    marker = f"AMPHORA_TEST_MARKER={os.getpid()}-daemon"

    def start() -> None:
        subprocess.Popen(
            ["sleep", "1000"], env={"PATH": os.environ["PATH"], **dict([marker.split("=")])}, start_new_session=True
        )

    userns.run(start)
    assert gone(marker)


def gone(marker: str) -> bool:
    end = time.monotonic() + 20
    while processes_with(marker):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from amphora_mkimage.guest import userns
work = Path(sys.argv[1])
def inside():
    if sys.argv[2] == "tmpfs":
        userns.mount("tmpfs", work, "tmpfs")
    child = subprocess.Popen(["sh", "-c", "mkdir -p $0/a; i=0; while :; do i=$((i+1)); echo $i > $0/a/$i; done", work])
    while not (work / "a").exists():
        time.sleep(0.01)
    print("started", flush=True)
    child.wait()
def clean():
    import shutil
    try:
        userns.unmount(work)
    except OSError:
        pass
    for _ in range(100):
        shutil.rmtree(work, ignore_errors=True)
        if not work.exists():
            break
        time.sleep(0.05)
userns.run(inside, on_end=clean)
"""


@pytest.mark.parametrize("kind", ["tmpfs", "disk"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_death_of_the_caller_ends_everything(kind: str, number: int, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    marker = f"AMPHORA_TEST_MARKER={os.getpid()}-{kind}-{number}"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), work, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **dict([marker.split("=")])},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"started\n"
    child.send_signal(number)
    child.wait()
    child.stdout.close()
    assert gone(marker)
    assert not work.exists()
    assert str(work) not in Path("/proc/self/mounts").read_text()


def test_what_is_done_outside_meanwhile() -> None:
    read, write = os.pipe()
    assert userns.run(lambda: os.read(read, 1), meanwhile=lambda _: os.write(write, b"x") and None) == b"x"


def test_a_failure_outside_ends_the_namespace(tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise MkimageError("what was wanted is not to be had")

    with pytest.raises(MkimageError, match="not to be had"):
        userns.run(lambda: time.sleep(3600), meanwhile=fail, on_end=(tmp_path / "mark").touch)
    assert (tmp_path / "mark").exists()


def test_a_failure_inside_ends_what_is_done_outside(tmp_path: Path) -> None:
    """And is the one that is told."""
    marker = f"AMPHORA_TEST_MARKER={os.getpid()}-outside"

    def outside(until: int) -> None:
        env = {**os.environ, **dict([marker.split("=")])}
        started = f"sleep 3600 & touch {tmp_path}/started; sleep 3600"
        process.run(["sh", "-c", started], Console(io.StringIO()), what="", env=env, until=until)

    def inside() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        raise MkimageError("the reason")

    with pytest.raises(MkimageError, match="the reason"):
        userns.run(inside, meanwhile=outside)
    assert processes_with(marker) == []
