"""Does this host let us act as root in namespaces of our own, and keep us inside a tree?

Everything that a build does there is done once, in the order in which hosts refuse it. Only after a refusal is the
host's configuration read, to say which part of it refused.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import id_maps, sub_ids, userns
from amphora_mkimage.guest.paths import open_inside
from amphora_mkimage.probe.outcome import Outcome, Result
from amphora_mkimage.probe.trial import attempt

_DEADLINE = 60.0
_SOMEBODY = 104  # any id that is neither root nor ours: _apt, messagebus
_CAPABILITY = "security.capability"
#: struct vfs_cap_data, revision 2, effective, CAP_NET_RAW permitted (include/uapi/linux/capability.h): what ping has.
_NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
_ENTER = "enter new namespaces"
_CHROOT = "change the root directory"
_OPTIONS = (
    "run the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined (podman: unmask=ALL in place of the latter two)"
)


def user_namespaces(_console: Console) -> Outcome:
    """Be root with real ids in new namespaces; mount, own and mark files there."""
    id_map = id_maps.plan()
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
        act = functools.partial(_act_as_root, Path(directory))
        try:
            refused = attempt(lambda: userns.run(act, id_map=id_map), _DEADLINE)
        except MkimageError as error:
            if isinstance(error, HostError) and error.remedy != userns.SEE_CHECK:
                return Outcome(Result.MISSING, error.what, error.remedy)
            # Where the very first mount is refused (AppArmor does that), there is no answer, only a traceback.
            evidence = next((line for line in reversed(error.tail) if "Error: " in line), "")
            refused = (_ENTER, evidence.partition("Error: ")[2] or error.what)
    if refused is None:
        how = "written directly" if id_map.privileged else "by newuidmap"
        reason = f"{sub_ids.IDS} ids ({how}); mounts, owners, setuid bits and file capabilities work"
        return Outcome(Result.OK, reason)
    step, error_text = refused
    cause, remedy = _cause(step, privileged=id_map.privileged)
    return Outcome(Result.MISSING, f"cannot {step}: {error_text}{f' ({cause})' if cause else ''}", remedy)


def require(console: Console) -> None:
    """Make sure that this host lets us be root in namespaces of our own, before any work: a build fails late without.

    :raises HostError: it does not
    """
    found = user_namespaces(console)
    if found.result != Result.OK:
        raise HostError(f"this host cannot build: {found.reason}", found.remedy)


def openat2(_console: Console) -> Outcome:
    """Follow an absolute link as the guest would, which keeps us inside its tree."""
    try:
        attempt(_follow_a_link, _DEADLINE)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        remedy = "use Linux 5.6 or newer; in a container, a runtime whose seccomp filter knows openat2"
        return Outcome(Result.MISSING, f"openat2(2) is refused: {error.strerror}", remedy)
    return Outcome(Result.OK, "links in the image are resolved inside it")


def _follow_a_link() -> None:
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
        tree = Path(directory)
        (tree / "file").write_bytes(b"inside")
        (tree / "link").symlink_to("/../file")
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with open(open_inside(root, "/link", os.O_RDONLY), "rb") as file:  # noqa: PTH123 (a descriptor)
            if file.read() != b"inside":
                raise MkimageError("openat2(2) resolved a link outside its tree")


# --- inside the namespaces ---------------------------------------------------------------------------------------


def _act_as_root(directory: Path) -> tuple[str, str] | None:
    """Do all steps; the one that was refused and the error, or None."""
    for name, step in _STEPS.items():
        try:
            step(directory)
        except OSError as error:
            text = error.strerror or str(error)
            # Our own calls say what they cannot, which is the step once more.
            return name, os.strerror(error.errno) if text.startswith(f"cannot {name} ") and error.errno else text
    return None


def _mount_tmpfs(directory: Path) -> None:
    userns.mount("tmpfs", directory, "tmpfs", 0, "mode=755")
    for name in ("proc", "sys", "pts"):
        (directory / name).mkdir()
    for name in ("file", "null"):
        (directory / name).touch()


def _mount_devices(directory: Path) -> None:
    userns.mount("devpts", directory / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    userns.mount("/dev/null", directory / "null", "", userns.MS_BIND)
    (directory / "null").write_bytes(b"gone")


def _own(directory: Path) -> None:
    os.chown(directory / "file", _SOMEBODY, _SOMEBODY)
    status = (directory / "file").stat()
    if (status.st_uid, status.st_gid) != (_SOMEBODY, _SOMEBODY):
        raise OSError(f"its owner reads back as {status.st_uid}:{status.st_gid}")


def _set_uid_bit(directory: Path) -> None:
    (directory / "file").chmod(0o4755)
    mode = (directory / "file").stat().st_mode & 0o7777
    if mode != 0o4755:
        raise OSError(f"its mode reads back as {mode:04o}")


def _set_capability(directory: Path) -> None:
    os.setxattr(directory / "file", _CAPABILITY, _NET_RAW)
    kept = os.getxattr(directory / "file", _CAPABILITY)
    if kept != _NET_RAW:
        raise OSError(f"it reads back as {kept.hex()}")


_STEPS: dict[str, Callable[[Path], None]] = {
    "mount a tmpfs": _mount_tmpfs,
    "mount proc": lambda directory: userns.mount("proc", directory / "proc", "proc"),
    "bind /sys": lambda directory: userns.mount("/sys", directory / "sys", "", userns.MS_BIND | userns.MS_REC),
    "mount device nodes": _mount_devices,
    "give a file to another user": _own,
    "set a setuid bit": _set_uid_bit,
    "set a file capability": _set_capability,
    "leave the network": lambda _directory: userns.without_network(),
    _CHROOT: os.chroot,  # the last: nothing outside is to be seen any more
}


# --- who refused -------------------------------------------------------------------------------------------------


def _cause(step: str, *, privileged: bool) -> tuple[str, str]:
    """Say who most likely refused a step, and what to do; either may be ""."""
    if step == "mount proc":
        return (
            "a container that masks parts of /proc keeps new ones from being mounted",
            "run the container with --security-opt systempaths=unconfined (podman: --security-opt unmask=ALL)",
        )
    if step == _CHROOT:
        # Docker's and podman's profiles let through only who has the capability outside the new namespaces too.
        return (
            "a container's seccomp filter allows it to containers with CAP_SYS_CHROOT",
            "run the container with --cap-add SYS_CHROOT (Kubernetes: capabilities.add)",
        )
    suspects = itertools.chain(_sysctls(privileged=privileged), _sandboxes())
    return next(suspects, ("", "allow this user namespaces with mounts; see user_namespaces(7)"))


def _sysctls(*, privileged: bool) -> Iterator[tuple[str, str]]:
    if _sysctl("user.max_user_namespaces") == "0":
        yield "user.max_user_namespaces is 0", "as root: sysctl user.max_user_namespaces=15000"
    if not privileged and _sysctl("kernel.unprivileged_userns_clone") == "0":
        yield "kernel.unprivileged_userns_clone is 0", "as root: sysctl kernel.unprivileged_userns_clone=1"
    # The process gets its namespace all the same, but no capability in it (apparmor.d(5), "userns").
    if not privileged and _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        yield (
            "AppArmor restricts them: kernel.apparmor_restrict_unprivileged_userns is 1",
            "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or load an AppArmor profile with the rule"
            f" `userns,` for {Path(sys.executable).resolve()}",
        )


def _sandboxes() -> Iterator[tuple[str, str]]:
    if "\nSeccomp:\t2" in _text(Path("/proc/self/status")):
        yield (
            "a seccomp filter is active, such as a container's",
            _OPTIONS,
        )
    profile = _text(Path("/proc/self/attr/apparmor/current")).removesuffix(" (enforce)")
    if profile not in ("", "unconfined"):
        yield f"AppArmor profile {profile}", "run the container with --security-opt apparmor=unconfined"


def _sysctl(name: str) -> str:
    return _text(Path("/proc/sys", *name.split(".")))


def _text(path: Path) -> str:
    """Read a small file of /proc; "" where this kernel does not have it."""
    try:
        return path.read_text(encoding="utf-8").strip("\0\n")
    except OSError:
        return ""
