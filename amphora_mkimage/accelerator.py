"""Is KVM really usable here? Found by running a kernel under it, not by looking at the device.

``/dev/kvm`` opens on hosts where it is worth nothing: in nested and confidential virtual machines qemu aborts on a
model-specific register, or the guest hangs when it leaves the firmware. libguestfs falls back to emulation only when
the device is *absent*, so on such hosts it fails, or waits for ever. Every use of libguestfs and qemu in this project
therefore asks :func:`choose` first.

The trial boots a real Linux kernel, without a disk, with exactly the arguments that later guests get, and waits for it
to panic for want of a root filesystem: by then it has set up paging, timers, interrupts and all its processors. A boot
sector of our own that switches to long mode is *not* enough: on the reference machine, with the processor model that
avoids the abort, it ran to its end in five seconds where a kernel hung for ever in its decompressor. Without a readable
kernel the answer is therefore emulation, which is slow and always right.

The verdict of a trial holds until the host reboots; it is kept in a file that only this user can have written.

``AMPHORA_MKIMAGE_ACCEL`` overrules all this: ``kvm`` and ``tcg`` are believed without a trial, ``auto`` (the default)
tries.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amphora_mkimage import verdicts
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.process import run

OVERRIDE = "AMPHORA_MKIMAGE_ACCEL"

#: A kernel reaches its panic within a second under KVM, three when nested, and four under emulation. What takes longer
#: than this is no acceleration.
TRIAL_SECONDS = 15.0

_DEVICE = Path("/dev/kvm")
_NAME = "accelerator"
_OVERRULE = f"set {OVERRIDE}=kvm to use KVM all the same"
_MAX_PROCESSORS = 4


@dataclass(frozen=True)
class Accelerator:
    """How guests are run.

    :param kvm: with KVM, or else emulated (qemu's TCG)
    :param reason: one line that says why
    :param remedy: one line that says what would make KVM usable, or ""
    """

    kvm: bool
    reason: str
    remedy: str = ""

    def qemu_arguments(self, emulated: str = "max") -> list[str]:
        """Accelerator, processor model and processor count for a qemu command line.

        :param emulated: processor model where there is no KVM
        """
        # thread=multi: one host thread a virtual processor. Emulation can be so slow that a single one starves a guest.
        accelerator, model = ("kvm", "host") if self.kvm else ("tcg,thread=multi", emulated)
        processors = min(_MAX_PROCESSORS, len(os.sched_getaffinity(0)))
        return ["-accel", accelerator, "-cpu", model, "-smp", str(processors)]

    def __str__(self) -> str:
        return f"{'KVM' if self.kvm else 'emulation (TCG)'}: {self.reason}"


def prepare_libguestfs(accelerator: Accelerator) -> dict[str, str]:
    """Environment variables that make libguestfs use what :func:`choose` chose.

    They must be set before the handle is created. ``direct`` because libvirt, the other backend, wants a daemon.
    """
    settings = [s for s in os.environ.get("LIBGUESTFS_BACKEND_SETTINGS", "").split(":") if s]
    if not accelerator.kvm and "force_tcg" not in settings:
        settings.append("force_tcg")
    variables = {"LIBGUESTFS_BACKEND": "direct"}
    if settings:
        variables["LIBGUESTFS_BACKEND_SETTINGS"] = ":".join(settings)
    return variables


def choose(console: Console) -> Accelerator:
    """Decide between KVM and emulation, by trial when no earlier verdict of this boot of the host is at hand.

    :raises BadValueError: the override has a value that means nothing
    :raises HostError: qemu is not installed
    """
    wanted = os.environ.get(OVERRIDE, "auto") or "auto"
    if wanted not in ("kvm", "tcg", "auto"):
        raise BadValueError(f"{OVERRIDE}={wanted} means nothing", "accepted values: kvm, tcg, auto")
    if wanted != "auto":
        return Accelerator(wanted == "kvm", f"asked for with {OVERRIDE}={wanted}")
    if not _DEVICE.exists():
        return Accelerator(False, f"{_DEVICE} does not exist", "load the kvm module, or enable nested virtualisation")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accelerator(False, f"no permission to open {_DEVICE}", "add this user to the group kvm and log in again")
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return Accelerator(False, f"KVM was never tried on {platform.machine()} hosts", _OVERRULE)
    kernel = _readable_kernel()
    if kernel is None:
        return Accelerator(
            False,
            "KVM cannot be tried, because no kernel in /boot is readable",
            f"name a readable kernel in SUPERMIN_KERNEL, or {_OVERRULE}",
        )
    return _verdict(machine, kernel, console)


# --- the trial ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Machine:
    """How qemu starts a kernel on one host architecture, and where that kernel prints."""

    qemu: str
    arguments: tuple[str, ...]
    serial: str


_MACHINES = {
    "x86_64": _Machine("qemu-system-x86_64", (), "ttyS0"),
    "aarch64": _Machine("qemu-system-aarch64", ("-machine", "virt,gic-version=host"), "ttyAMA0"),
}


def _readable_kernel() -> Path | None:
    """Find the newest kernel of this host that we may read (Ubuntu makes them 0600)."""
    named = [Path(os.environ["SUPERMIN_KERNEL"])] if os.environ.get("SUPERMIN_KERNEL") else []
    if os.environ.get("LIBGUESTFS_PATH"):
        named.append(Path(os.environ["LIBGUESTFS_PATH"]) / "kernel")
    found = [*Path("/boot").glob("vmlinuz-*"), *Path("/lib/modules").glob("*/vmlinuz")]
    found = [k for k in found if "rescue" not in k.name and os.access(k, os.R_OK)]
    found.sort(key=lambda k: k.stat().st_mtime, reverse=True)
    return next((k for k in [*named, *found] if k.is_file() and os.access(k, os.R_OK)), None)


def boot_failure(
    accelerator: Accelerator, machine: _Machine, kernel: Path, console: Console, deadline: float = TRIAL_SECONDS
) -> str:
    """Boot ``kernel`` on ``accelerator`` until it panics; why it did not get there, or ""."""
    argv = [machine.qemu, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-m", "256"]
    argv += [*accelerator.qemu_arguments(), *machine.arguments]
    argv += ["-kernel", str(kernel), "-append", f"console={machine.serial} panic=-1", "-serial", "stdio"]
    if shutil.which("setpriv"):
        # Should we be killed meanwhile, a hanging qemu would stay for ever.
        argv = ["setpriv", "--pdeathsig", "KILL", *argv]
    quiet = Console(io.StringIO(), console.log)  # what a guest prints is not evidence for later errors
    try:
        printed = run(argv, quiet, what="trial", deadline=deadline)
    except MkimageError as error:
        complaints = [line for line in error.tail if line.startswith("qemu-system") and ": warning:" not in line]
        return complaints[0] if complaints else f"no kernel came up within {deadline:.0f} s"
    # -no-reboot ends qemu with status 0 after a triple fault, too.
    return "" if "Kernel panic" in printed else "the guest reset itself before its kernel was up"


def _try_kvm(machine: _Machine, kernel: Path, console: Console) -> Accelerator:
    failure = boot_failure(Accelerator(True, ""), machine, kernel, console)
    if not failure:
        return Accelerator(True, "a trial boot succeeded")
    return Accelerator(
        False,
        f"{_DEVICE} opens, but a trial boot failed: {failure}",
        f"nothing to do; work is done by emulation, only slower ({_OVERRULE})",
    )


# --- its verdict, until the next boot of the host ------------------------------------------------------------------


def _verdict(machine: _Machine, kernel: Path, console: Console) -> Accelerator:
    """Return the cached verdict of an earlier trial, or else that of a new one."""
    version = run([machine.qemu, "--version"], console, what="cannot start guests", deadline=10)
    numbers = re.search(r"version (.*)", version)
    key = verdicts.key(numbers[1] if numbers else version)
    cached = _from_fields(verdicts.recall(_NAME, key))
    if cached is not None:
        return cached
    with console.step("Trying KVM"):
        verdict = _try_kvm(machine, kernel, console)
    verdicts.keep(_NAME, key, asdict(verdict))
    return verdict


def _from_fields(fields: dict[str, Any] | None) -> Accelerator | None:
    try:
        verdict = Accelerator(**(fields or {}))
    except TypeError:
        return None
    return verdict if isinstance(verdict.kvm, bool) else None
