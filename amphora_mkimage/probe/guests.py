"""Can this host look into images with libguestfs, and boot them in qemu?"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from pathlib import Path

from amphora_mkimage import accelerator, process
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.boot import firmware
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import foreign
from amphora_mkimage.probe.outcome import Outcome, Result
from amphora_mkimage.probe.trial import attempt

_DEADLINE = 60.0
_FIRST_WITH_PASST = (1, 52)
_LAUNCH_DEADLINE = 300.0  # 14 to 33 s under emulation on an idle machine


def guestfs_module(_console: Console) -> Outcome:
    """Import libguestfs' binding and make a handle."""
    try:
        version = attempt(_guestfs_version, _DEADLINE)
    except ImportError as error:
        remedy = "install the package python3-guestfs; a virtual environment needs --system-site-packages to see it"
        return Outcome(Result.MISSING, f"cannot import guestfs: {error}", remedy)
    return Outcome(Result.OK, f"libguestfs {version}")


def appliance_kernel(console: Console) -> Outcome:
    """Let supermin make an appliance of next to nothing, which needs a kernel with modules that we may read."""
    install = "as root: apt install linux-image-cloud-amd64"
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as name:
        directory = Path(name)
        (directory / "in").mkdir()
        (directory / "in/hostfiles").write_text("/usr\n/usr/lib\n/lib\n", encoding="ascii")
        argv = ["supermin", "--build", "--format", "ext2", "--host-cpu", platform.machine(), str(directory / "in")]
        argv += ["-o", str(directory / "out")]
        try:
            process.run(argv, console, what="supermin finds no kernel", deadline=_DEADLINE)
        except HostError:
            return Outcome(Result.MISSING, "supermin is not installed", "install the packages supermin, libguestfs0")
        except MkimageError as error:
            evidence = next((line for line in error.tail if line.startswith("supermin: ")), error.what)
            remedy = f"{install}, or name a kernel and its modules in SUPERMIN_KERNEL and SUPERMIN_MODULES"
            return Outcome(Result.MISSING, evidence, remedy)
        # supermin only links to the kernel; qemu is what cannot read it then. Ubuntu makes them 0600 (LP: #759725).
        kernel = (directory / "out/kernel").resolve()
        if not os.access(kernel, os.R_OK):
            remedy = f"as root: chmod 0644 {kernel}, or name a readable copy of it in SUPERMIN_KERNEL"
            return Outcome(Result.MISSING, f"{kernel} is not readable for this user", remedy)
    return Outcome(Result.OK, str(kernel))


def appliance_network(console: Console) -> Outcome:
    """Start passt as libguestfs does for an appliance with a network, which a package manager in it may need."""
    return passt(attempt(_guestfs_version, _DEADLINE), console)


def passt(version: str, console: Console) -> Outcome:
    """Tell which network a version of libguestfs gives its appliance, and whether that starts.

    From 1.52 on it takes passt where ``passt --help`` runs, and has no second try when passt then fails; before, and
    without passt, it takes qemu's own.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < _FIRST_WITH_PASST or shutil.which("passt") is None:
        return Outcome(Result.OK, "qemu's own")
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
        place = Path(directory, "socket")
        argv = ["passt", "--one-off", "--socket", str(place), "--pid", f"{directory}/pid"]
        try:
            process.run(argv, console, what="passt does not start", deadline=_DEADLINE)
            with socket.socket(socket.AF_UNIX) as client:  # it goes into the background, and ends with its only client
                client.connect(str(place))
        except (MkimageError, OSError) as error:
            tail = error.tail[-1:] if isinstance(error, MkimageError) else ()
            reason = f"{error}{''.join(f' ({line})' for line in tail)}"
            remedy = "remove the package passt: qemu's own network is used then; or as root: aa-complain passt"
            return Outcome(Result.LIMITED, f"{reason}: no packages can be fetched from inside the appliance", remedy)
    return Outcome(Result.OK, "passt")


def virtualisation(console: Console) -> Outcome:
    """Find out by a trial boot whether guests run under KVM or are emulated."""
    chosen = accelerator.choose(console)
    return Outcome(Result.OK if chosen.kvm else Result.LIMITED, str(chosen), chosen.remedy)


def uefi_firmware(_console: Console) -> Outcome:
    """Look for the firmware that ``boot --uefi`` would use."""
    try:
        found = firmware.find()
    except HostError as error:
        return Outcome(Result.LIMITED, f"{error.what}: only BIOS boots can be tried", error.remedy)
    return Outcome(Result.OK, str(found.code))


def other_architectures(_console: Console) -> Outcome:
    """Run a program of each architecture that images can be built for."""
    run: list[str] = []
    errors: list[HostError] = []
    for name in ARCHITECTURES:
        try:
            foreign.require(name)
            run.append(name)
        except HostError as error:
            errors.append(error)
    if not run and len({error.what for error in errors}) == 1:  # nothing to do with an architecture
        return Outcome(Result.LIMITED, f"not known: {errors[0].what}", errors[0].remedy)
    refused = [error.what.partition("programs for ")[2] or error.what for error in errors]
    remedy = errors[-1].remedy if errors else ""
    reason = "; not ".join(filter(None, (f"can be built: {', '.join(run)}", "; not ".join(refused))))
    return Outcome(Result.LIMITED if refused else Result.OK, reason, remedy)


def launch(console: Console) -> Outcome:
    """Start libguestfs' appliance as ``verify`` does."""
    variables = accelerator.prepare_libguestfs(accelerator.choose(console))
    try:
        attempt(lambda: _launch(variables), _LAUNCH_DEADLINE)
    except (RuntimeError, ImportError) as error:
        return Outcome(Result.MISSING, f"the appliance does not start: {error}", "run libguestfs-test-tool")
    return Outcome(Result.OK, "the appliance starts")


def _guestfs_version() -> str:
    import guestfs  # noqa: PLC0415 (only to be loaded here: a broken library may crash the process)

    version = guestfs.GuestFS(python_return_dict=True).version()
    return ".".join(str(version[part]) for part in ("major", "minor", "release"))


def _launch(variables: dict[str, str]) -> None:
    import guestfs  # noqa: PLC0415 (as above)

    os.environ.update(variables)
    handle = guestfs.GuestFS(python_return_dict=True)
    handle.add_drive_scratch(1 << 20)
    handle.launch()
    handle.shutdown()
    handle.close()
