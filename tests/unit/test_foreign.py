"""Programs of other architectures on this host: real ones, and hosts made poorer by a namespace."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from amphora_mkimage import cli
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.console import Console
from amphora_mkimage.errors import ExitStatus, HostError
from amphora_mkimage.guest import foreign, userns
from amphora_mkimage.probe import guests
from amphora_mkimage.probe.outcome import Result

_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
pytestmark = pytest.mark.skipif(
    subprocess.run(_UNSHARE, capture_output=True, check=False).returncode != 0 or os.uname().machine != "x86_64",
    reason="needs user namespaces on x86-64",
)
BINFMT = Path("/proc/sys/fs/binfmt_misc")
#: A foreign program is recognised by the first bytes of its ELF header, up to e_machine.
REGISTER = r":test:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00::/bin/true:"


def forget_all() -> None:
    """Have no foreign programs in this namespace.

    :raises OSError: this kernel is older than 6.7, whose binfmt_misc first was a namespace's own
    """
    userns.mount("proc", Path("/proc"), "proc")  # of this pid namespace: the next one's id maps are written there
    userns.mount("binfmt_misc", BINFMT, "binfmt_misc")


def isolated(registration: str = "") -> Callable[[], str]:
    """Make a function that asks for arm64 where nothing but ``registration`` is registered (Linux 6.7 or newer)."""

    def ask() -> str:
        try:
            forget_all()
        except OSError as error:
            return f"skip: {error}"
        if registration:
            (BINFMT / "register").write_text(registration)
        try:
            foreign.require("arm64")
        except HostError as error:
            return f"{error.what}\n{error.remedy}"
        return ""

    return ask


def refusal(registration: str = "") -> str:
    text = userns.run(isolated(registration))
    if text.startswith("skip: "):
        pytest.skip(f"no binfmt_misc of a namespace's own: {text}")
    return text


def test_native_programs_run() -> None:
    foreign.require("amd64")


def test_a_host_that_knows_no_foreign_programs() -> None:
    text = refusal()
    assert "cannot run programs for arm64: the kernel does not know them" in text
    assert "qemu-user-static binfmt-support" in text


def test_a_registration_that_is_of_no_use_in_a_chroot() -> None:
    assert "without the flag F" in refusal(REGISTER)


def test_a_registration_that_serves_a_chroot() -> None:
    """/bin/true stands in for qemu-user: what it does with the program does not matter here, that it starts does.

    A dynamic program would need its linker inside the tree, so a static one is taken where there is one.
    """
    static = next((p for p in ("/bin/busybox", "/usr/bin/qemu-aarch64-static") if Path(p).exists()), "")
    if not static:
        pytest.skip("no static program to register")
    text = refusal(REGISTER.replace("/bin/true:", f"{static}:F"))
    assert text == "" or "a trial ended with status" in text


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_programs_are_what_qemu_registers_for(name: str) -> None:
    elf = foreign._PROGRAMS[name].elf()
    assert elf[:7] == b"\x7fELF" + bytes((2 if foreign._PROGRAMS[name].bits == 64 else 1, 1, 1))
    assert struct.unpack_from("<HH", elf, 16) == (2, foreign._PROGRAMS[name].machine)
    assert len(elf) < 200
    done = subprocess.run(["file", "--brief", "-"], input=elf, capture_output=True, check=False)
    assert done.returncode != 0 or b"ELF" in done.stdout


def test_a_build_is_refused_before_any_work(tmp_path: Path) -> None:
    def run() -> tuple[int, list[str]]:
        try:
            forget_all()
        except OSError:
            return -1, []
        argv = [
            "-i",
            "debian-minimal",
            "-a",
            "ppc64le",
            "--no-agent",
            "-o",
            str(tmp_path / "a"),
            "-w",
            str(tmp_path / "work"),
        ]
        status = cli.main([*argv, "-c", str(tmp_path / "cache"), "-l", str(tmp_path / "log")])
        return status, sorted(path.name for path in tmp_path.iterdir())

    status, left = userns.run(run)
    if status == -1:
        pytest.skip("no binfmt_misc of a namespace's own")
    assert status == ExitStatus.HOST
    assert left == ["log"]


def test_check_names_the_architectures_that_run() -> None:
    outcome = guests.other_architectures(Console(io.StringIO()))
    assert outcome.result in (Result.OK, Result.LIMITED)
    for name in ("i386", "armhf", "arm64", "ppc64el"):
        assert name in outcome.reason
    assert bool(outcome.remedy) == (outcome.result == Result.LIMITED)
