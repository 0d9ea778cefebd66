"""Can this host's processor run the programs of a release: they are run while the image is made."""

from __future__ import annotations

from pathlib import Path

from amphora_mkimage.errors import HostError

#: Flags of /proc/cpuinfo by level of x86-64 (its psABI, "Micro-Architecture Levels"; lzcnt is called abm there).
LEVELS = {"x86-64-v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")}


def require(level: str, what: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuse a build whose programs end at once here ("Fatal glibc error"), before anything is fetched.

    :param level: of :data:`LEVELS`; "" for what runs on any
    :param what: base and release, for the error
    :raises HostError: this processor lacks something
    """
    flags = _flags(cpuinfo)
    missing = [flag for flag in LEVELS.get(level, ()) if flag not in flags]
    if missing and flags:
        raise HostError(
            f"{what} needs a processor of level {level}, and this one has no {', '.join(missing)} (/proc/cpuinfo)",
            "build on a newer processor; where this is a virtual machine, give it a newer model (host-passthrough)",
        )


def _flags(cpuinfo: Path) -> frozenset[str]:
    """Return the flags of the first processor; none where there is no such line (other architectures)."""
    for line in cpuinfo.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
