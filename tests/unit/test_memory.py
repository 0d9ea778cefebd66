"""How much memory a build may use: files as the kernel writes them, and a control group of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from public import PYTHON, public_root

from amphora_mkimage import memory
from amphora_mkimage.errors import MkimageError

_CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with 20 GiB of memory; its files are below."""
    for name, text in (
        ("meminfo", "MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\n"),
        ("self/cgroup", "0::/\n"),
        ("vmstat", "oom_kill 0\n"),
    ):
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def available(host: Path) -> memory.Source:
    return memory.available(host, host / "cgroup")


MIB = 1 << 20
#: Membership, files below the mount of control groups, MiB that are free, and who says so.
CASES = {
    "no control groups": ("0::/\n", {}, 20480, "this host"),
    "no limit": (
        "0::/a\n",
        {"a/memory.max": "max", "a/memory.high": "max", "a/memory.current": "7"},
        20480,
        "this host",
    ),
    "version 2, less what is used": (
        "0::/a\n",
        {"a/memory.max": str(1024 * MIB), "a/memory.current": str(300 * MIB)},
        724,
        "the control group a",
    ),
    "version 2, what is used can be taken back": (
        "0::/a\n",
        {
            "a/memory.max": str(1024 * MIB),
            "a/memory.current": str(300 * MIB),
            "a/memory.stat": f"anon 1\nfile {250 * MIB}\nactive_file {50 * MIB}\ninactive_file {150 * MIB}\n",
        },
        924,
        "the control group a",
    ),
    "version 2, an ancestor": (
        "0::/a/b/c\n",
        {
            "a/b/c/memory.max": "max",
            "a/b/memory.max": str(4096 * MIB),
            "a/memory.max": str(2048 * MIB),
            "a/memory.current": str(100 * MIB),
        },
        1948,
        "the control group a",
    ),
    "version 2, the limit above which all is slow": (
        "0::/a\n",
        {"a/memory.max": str(4096 * MIB), "a/memory.high": str(512 * MIB)},
        512,
        "the control group a",
    ),
    "version 2, a container that sees its own group as the root": (
        "0::/\n",
        {"memory.max": str(512 * MIB), "memory.current": str(12 * MIB)},
        500,
        "the control group .",
    ),
    "version 2 beside version 1": (
        "1:cpu:/\n0::/a\n",
        {"unified/a/memory.max": str(512 * MIB)},
        512,
        "the control group unified/a",
    ),
    "version 1": (
        "5:cpuset:/x\n4:cpu,memory:/a\n",
        {
            "memory/a/memory.limit_in_bytes": str(2048 * MIB),
            "memory/a/memory.usage_in_bytes": str(1048 * MIB),
            "memory/a/memory.stat": f"inactive_file 9\ntotal_inactive_file {200 * MIB}\ntotal_active_file {48 * MIB}\n",
        },
        1248,
        "the control group memory/a",
    ),
    "version 1, the path is the host's": (
        "4:memory:/docker/0123\n",
        {"memory/memory.limit_in_bytes": str(600 * MIB), "memory/memory.usage_in_bytes": "0"},
        600,
        "the control group memory",
    ),
    "version 1, a limit of what a container does not see": (
        "4:memory:/kubepods/pod/0123\n",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "0",
            "memory/memory.stat": f"hierarchical_memory_limit {700 * MIB}\n",
        },
        700,
        "the control group memory",
    ),
    "more is used than allowed": (
        "0::/a\n",
        {"a/memory.max": str(100 * MIB), "a/memory.current": str(300 * MIB)},
        0,
        "the control group a",
    ),
    "the host has less": (
        "0::/a\n",
        {"a/memory.max": str(40960 * MIB), "a/memory.current": "0"},
        20480,
        "this host",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_counts(case: str, host: Path) -> None:
    membership, files, mib, name = CASES[case]
    write(host / "self/cgroup", membership)
    for file, text in files.items():
        write(host / "cgroup" / file, text + "\n")
    found = available(host)
    assert (found.name, found.free) == (name, mib * MIB)
    assert found.enough == (mib >= 3072)
    assert found.of_host == (name == "this host")


@pytest.mark.parametrize(
    ("version", "file"),
    [("0::/a\n", "cgroup/a/memory.events"), ("4:memory:/a\n", "cgroup/memory/a/memory.oom_control")],
)
def test_what_the_kernel_killed_is_noticed(version: str, file: str, host: Path) -> None:
    write(host / "self/cgroup", version)
    limit = "memory.max" if version.startswith("0") else "memory.limit_in_bytes"
    write(host / file, "oom 1\noom_kill 1\n")
    write((host / file).with_name(limit), str(1 << 30))
    watch = memory.Watch(host, host / "cgroup")
    assert watch.killed() == ""
    write(host / file, "oom 2\noom_kill 2\n")
    assert watch.killed() == "its control group, which allows 1.0 GiB"
    write(host / file, "oom 1\noom_kill 1\n")
    write(host / "vmstat", "nr_free_pages 1\noom_kill 1\n")
    assert watch.killed() == "this host"


# --- the real thing ------------------------------------------------------------------------------------------------


@pytest.fixture
def limited() -> Iterator[Path]:
    """A control group with 64 MiB, of whichever version is mounted here."""
    first = next(memory.groups(), None)
    root = _CGROUPS / "memory" if (_CGROUPS / "memory").is_dir() else first.directory if first else _CGROUPS
    group = root / f"amphora-mkimage-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        name = next((name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists()), "")
        if not name:
            pytest.skip("control groups have no memory here")
        (group / name).write_text(str(64 << 20))
        for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            with contextlib.suppress(OSError):
                (group / swap).write_text("0" if swap == "memory.swap.max" else str(64 << 20))
        yield group
    finally:
        group.rmdir()


_EATER = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from amphora_mkimage import memory
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns

def eat():
    if sys.argv[2] == "tmpfs":
        userns.mount("tmpfs", Path("/tmp"), "tmpfs", 0, "size=1g")
        with open("/tmp/x", "wb") as file:
            for _ in range(256):
                file.write(b"x" * (1 << 20))
    else:
        bytearray(256 << 20)

print(memory.available())
try:
    with memory.explained(in_tmpfs=sys.argv[2] == "tmpfs"):
        userns.run(eat)
except MkimageError as error:
    print(error.what, error.remedy, sep="\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a control group")
@pytest.mark.parametrize("where", ["tmpfs", "process"])
def test_the_worker_is_killed_and_its_caller_says_why(where: str, limited: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-c", _EATER, limited, where],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(public_root())},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    free, what, remedy = done.stdout.splitlines()
    assert free.startswith("the control group")
    assert "its control group, which allows 0.1 GiB" in what
    assert what.startswith("the build ran out of memory")
    assert ("-f" in remedy) == (where == "tmpfs")
    assert "more memory" in remedy


def test_another_failure_is_left_as_it_is() -> None:
    with pytest.raises(MkimageError, match=r"^something else$"), memory.explained(in_tmpfs=True):
        raise MkimageError("something else")
