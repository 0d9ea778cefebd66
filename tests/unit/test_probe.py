"""What ``check`` finds: on this host, as a user without privileges, and where something was taken away for real."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from public import PYTHON, public_root

from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import userns
from amphora_mkimage.probe import guests, namespaces, resources
from amphora_mkimage.probe.command import CHECKS, blockers
from amphora_mkimage.probe.outcome import Need, Outcome, Probe, Result
from amphora_mkimage.probe.trial import attempt

_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
needs_namespaces = pytest.mark.skipif(
    subprocess.run(_UNSHARE, capture_output=True, check=False).returncode != 0, reason="needs user namespaces"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("useradd") is None, reason="needs root to add users")
needs_newuidmap = pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs newuidmap")


def check(*argv: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(public_root()), **variables}
    words = [PYTHON, "-m", "amphora_mkimage", "check"]
    return subprocess.run([*argv, *words, "--json"], capture_output=True, text=True, cwd=cwd, env=env, check=False)


def by_name(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    return {probe["name"]: probe for probe in json.loads(done.stdout)["probes"]}


# --- the whole command -------------------------------------------------------------------------------------------


def test_everything_is_probed_here_and_the_status_says_whether_one_can_build(tmp_path: Path) -> None:
    done = check(cwd=tmp_path)
    found = by_name(done)
    assert list(found) == [row.name for row in CHECKS]
    assert all(probe["result"] != "failed" for probe in found.values()), found
    assert all(probe["reason"] for probe in found.values())
    assert all(probe["remedy"] for probe in found.values() if probe["result"] == "missing"), found
    assert done.returncode == (0 if json.loads(done.stdout)["build"] else 2)
    assert list(tmp_path.iterdir()) == []


def test_text_has_a_line_for_each_probe_and_the_verdicts(tmp_path: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-m", "amphora_mkimage", "check"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(public_root())},
        check=False,
    )
    head, _, verdicts = done.stdout.rpartition("\n\n")
    assert [line.split(":")[0] for line in verdicts.splitlines()] == ["build", "verify", "boot"]
    lines = [line for line in head.splitlines() if not line.startswith(" ")]
    assert len(lines) == len(CHECKS)
    assert all(row.name in line for row, line in zip(CHECKS, lines, strict=True))


def test_a_path_without_a_build_tool_names_its_package(tmp_path: Path, farm: Path) -> None:
    (farm / "zstd").unlink()
    done = check(cwd=tmp_path, PATH=str(farm))
    found = by_name(done)
    assert found["zstd"]["result"] == "missing"
    assert found["zstd"]["reason"] == "zstd is not installed"
    assert found["zstd"]["remedy"] == "install the package zstd"
    assert done.returncode == 2
    assert json.loads(done.stdout)["build"] is False


def test_what_only_boots_need_does_not_forbid_building(tmp_path: Path, farm: Path, console: Console) -> None:
    (farm / "xorriso").unlink()
    done = check(cwd=tmp_path, PATH=str(farm))
    assert by_name(done)["xorriso"]["result"] == "missing"
    report = json.loads(done.stdout)
    assert report["boot"] is False
    assert done.returncode == (0 if report["build"] else 2)


# --- users without privileges ------------------------------------------------------------------------------------


@pytest.fixture
def user() -> Iterator[str]:
    """A new user, of whom nothing is left afterwards. System users get no subordinate ids (useradd(8))."""
    name = f"mkimage-test-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", name], check=True)
        assert name not in Path("/etc/passwd").read_text() + Path("/etc/subuid").read_text()


@pytest.fixture
def theirs(user: str) -> Iterator[Path]:
    """A directory of that user's, outside pytest's own, which nobody else may enter."""
    directory = Path(subprocess.check_output(["mktemp", "-d", "/tmp/mkimage-test-XXXXXX"], text=True).strip())
    shutil.chown(directory, user, user)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def check_as(user: str, directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all", *options]
    home = {"HOME": str(directory), "TMPDIR": str(directory), "XDG_RUNTIME_DIR": "", "XDG_CACHE_HOME": ""}
    return check(*become, cwd=directory, **home, **variables)


@needs_root
def test_a_user_without_subordinate_ids_cannot_build_and_learns_why(user: str, theirs: Path) -> None:
    done = check_as(user, theirs)
    found = by_name(done)
    assert found["user namespaces"]["result"] == "missing"
    assert "/etc/subuid" in found["user namespaces"]["reason"]
    assert re.search(rf"usermod --add-subuids (\d+-\d+) --add-subgids \1 {user}$", found["user namespaces"]["remedy"])
    assert found["openat2"]["result"] == "ok"
    assert done.returncode == 2


@needs_root
@needs_namespaces
@needs_newuidmap
def test_a_user_with_subordinate_ids_can_be_root(user: str, theirs: Path, farm: Path) -> None:
    ids = ["--add-subuids", "2000000000-2000065535", "--add-subgids", "2000000000-2000065535"]
    subprocess.run(["usermod", *ids, user], check=True)
    found = by_name(check_as(user, theirs))
    assert found["user namespaces"]["result"] == "ok", found["user namespaces"]
    assert "newuidmap" in found["user namespaces"]["reason"]


@needs_root
@needs_namespaces
@needs_newuidmap
def test_two_ranges_do_as_well_as_one(user: str, theirs: Path) -> None:
    """As in a rootless container, whose ids are the user's own, those below and those above."""
    for kind in ("uids", "gids"):
        for ids in ("2000000000-2000000999", "2000002000-2000066534"):
            subprocess.run(["usermod", f"--add-sub{kind}", ids, user], check=True)
    found = by_name(check_as(user, theirs))
    assert found["user namespaces"]["result"] == "ok", found["user namespaces"]


@needs_root
@needs_newuidmap
@pytest.mark.parametrize(
    ("options", "reason", "remedy"),
    [
        (["--bounding-set=-sys_admin"], "is setuid, which is not enough", "setcap cap_setuid=ep"),
        (["--no-new-privs"], "no_new_privs is set", "allowPrivilegeEscalation"),
        (["--bounding-set=-setuid"], "CAP_SETUID", "--cap-add SETUID"),
    ],
)
def test_what_a_container_takes_from_newuidmap_is_named(
    user: str, theirs: Path, options: list[str], reason: str, remedy: str
) -> None:
    ids = ["--add-subuids", "2000000000-2000065535", "--add-subgids", "2000000000-2000065535"]
    subprocess.run(["usermod", *ids, user], check=True)
    done = check_as(user, theirs, *options)
    found = by_name(done)["user namespaces"]
    assert found["result"] == "missing"
    assert reason in found["reason"]
    assert remedy in found["remedy"]
    assert done.returncode == 2


@needs_root
@pytest.mark.parametrize("lacking", ["setuid", "setgid", "setfcap"])
def test_what_a_container_takes_from_root_is_named(lacking: str, tmp_path: Path) -> None:
    if lacking == "setfcap" and tuple(int(part) for part in platform.release().split(".")[:2]) < (5, 12):
        pytest.skip("older kernels let root be mapped without it")
    done = check("setpriv", f"--bounding-set=-{lacking}", "--inh-caps=-all", cwd=tmp_path)
    found = by_name(done)
    assert found["user namespaces"]["result"] == "missing"
    assert f"CAP_{lacking.upper()}" in found["user namespaces"]["reason"]
    assert f"--cap-add {lacking.upper()}" in found["user namespaces"]["remedy"]
    assert found["architectures"]["reason"].count("CAP_") <= 2, "said once, not for each architecture"
    assert all(probe["result"] != "failed" for probe in found.values()), found
    assert done.returncode == 2


@needs_root
@pytest.mark.parametrize("bare", [False, True])
def test_a_build_under_a_masked_proc_is_refused_before_any_work(bare: bool, tmp_path: Path) -> None:
    """A container's, made with a mount; also where nothing is known of an archive but what mmdebstrap knows."""
    cover = "mount -t tmpfs none /proc/tty" + ("; mount -t tmpfs none /var/lib/apt/lists" if bare else "")
    words = [PYTHON, "-m", "amphora_mkimage", "-i", "debian-minimal", "-o", f"{tmp_path}/a", "-w", f"{tmp_path}/work"]
    words += ["-c", f"{tmp_path}/cache", "-l", f"{tmp_path}/log"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{cover}; exec "$@"', "sh", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(public_root())},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot mount proc" in done.stderr
    assert "unmask=ALL" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@needs_root
@pytest.mark.skipif(shutil.which("supermin") is None, reason="needs supermin")
def test_a_kernel_that_the_user_may_not_read_is_named(user: str, theirs: Path) -> None:
    kernel = next((k for k in Path("/boot").glob("vmlinuz-*") if (Path("/lib/modules") / k.name[8:]).is_dir()), None)
    if kernel is None:
        pytest.skip("needs a kernel with modules")
    mine = theirs / kernel.name
    shutil.copyfile(kernel, mine)
    mine.chmod(0o600)
    modules = f"/lib/modules/{kernel.name[8:]}"
    done = check_as(user, theirs, SUPERMIN_KERNEL=str(mine), SUPERMIN_MODULES=modules)
    found = by_name(done)["appliance kernel"]
    assert found["result"] == "missing"
    assert str(mine) in found["reason"] or "ermission denied" in found["reason"], found
    assert "SUPERMIN_KERNEL" in found["remedy"]
    assert "appliance kernel" in blockers([Probe("appliance kernel", (Need.VERIFY,), Result.MISSING, "")], Need.VERIFY)


# --- namespaces that are refused for real, in a namespace of the test's ------------------------------------------


def refused(console: Console) -> Outcome:
    return namespaces.user_namespaces(console)


@needs_namespaces
def test_namespaces_used_up(console: Console) -> None:
    def without() -> Outcome:
        Path("/proc/sys/user/max_user_namespaces").write_text("0")  # of this namespace, not of the host
        return refused(console)

    outcome = userns.run(without)
    assert outcome.result == Result.MISSING
    assert "user.max_user_namespaces is 0" in outcome.reason
    assert outcome.remedy.endswith("sysctl user.max_user_namespaces=15000")


@needs_namespaces
def test_a_masked_proc_is_recognised(console: Console) -> None:
    def masked() -> Outcome:
        # As container engines do. The kernel then refuses a new proc to namespaces below (mount_too_revealing).
        userns.mount("proc", Path("/proc"), "proc")
        userns.mount("tmpfs", Path("/proc/acpi" if Path("/proc/acpi").is_dir() else "/proc/tty"), "tmpfs")
        return refused(console)

    outcome = userns.run(masked)
    assert outcome.result == Result.MISSING
    assert outcome.reason.startswith("cannot mount proc: ")
    assert "systempaths=unconfined" in outcome.remedy
    assert "unmask=ALL" in outcome.remedy


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is written for x86-64")
@pytest.mark.parametrize("call", ["unshare", "mount", "openat2", "chroot"])
def test_a_seccomp_filter_is_recognised(console: Console, call: str) -> None:
    def filtered() -> Outcome:
        forbid({"chroot": 161, "mount": 165, "unshare": 272, "openat2": 437}[call])
        return namespaces.openat2(console) if call == "openat2" else refused(console)

    outcome = attempt(filtered, 60)
    assert outcome.result == Result.MISSING
    assert "seccomp" in outcome.reason + outcome.remedy
    assert os.strerror(errno.EPERM) in outcome.reason


def forbid(number: int) -> None:
    """Let a system call fail with EPERM in this process and its children, for good (seccomp(2))."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # load the number of the call
            (0x15, 0, 1, number),  # is it the one?
            (0x06, 0, 0, 0x00050000 | errno.EPERM),  # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", 4, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, header, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP


@needs_root
def test_a_user_without_a_name_learns_why(console: Console) -> None:
    def nameless() -> Outcome:
        os.setuid(1999999999)
        return refused(console)

    with pytest.raises(HostError, match="user id 1999999999 has no name"):
        attempt(nameless, 60)


@needs_namespaces
def test_every_step_of_a_build_is_tried_here(console: Console) -> None:
    if os.geteuid() != 0:
        pytest.skip("depends on the user's subordinate ids")
    outcome = refused(console)
    assert outcome.result == Result.OK, outcome


# --- resources and guests ----------------------------------------------------------------------------------------


def test_a_filesystem_without_unnamed_files_is_a_limit(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    assert resources.unnamed_files(console).result == Result.LIMITED


def test_unnamed_files_leave_nothing(console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resources.unnamed_files(console).result == Result.OK
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
@pytest.mark.skipif(shutil.which("supermin") is None, reason="needs supermin")
def test_an_appliance_without_a_kernel(console: Console) -> None:
    def bare() -> Outcome:
        for place in ("/boot", "/lib/modules"):  # as in a container
            if Path(place).is_dir():
                userns.mount("tmpfs", Path(place), "tmpfs")
        return guests.appliance_kernel(console)

    outcome = userns.run(bare)
    assert outcome.result == Result.MISSING
    assert "failed to find a suitable kernel" in outcome.reason
    assert "linux-image-cloud-amd64" in outcome.remedy
