"""Find UEFI firmware for qemu the way qemu's own manual lays down, which is the way libvirt uses.

Distributions keep firmware in different places and formats (Debian and Ubuntu under ``/usr/share/OVMF``, raw; Fedora
under ``/usr/share/edk2/ovmf``, raw or qcow2), but all of them ship descriptors that say where:
docs/interop/firmware.json in qemu's source.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amphora_mkimage.boot.hardware import HARDWARE, Hardware
from amphora_mkimage.errors import HostError

#: In order of precedence; a file in an earlier directory hides one of the same name in a later one.
DESCRIPTORS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))

#: The machine types that it has to fit, by what descriptors call the processor.
MACHINES = {"x86_64": "pc-q35-7.2", "aarch64": "virt-7.2", "arm": "virt-7.2"}
#: Firmware with one of these would need a machine, or a signed boot chain, that was not asked for.
_UNWANTED = frozenset(("requires-smm", "secure-boot", "enrolled-keys", "amd-sev-es", "amd-sev-snp", "intel-tdx"))


@dataclass(frozen=True)
class Firmware:
    """One firmware build.

    :param code: the firmware itself, read by qemu
    :param variables: the empty variable store; must be copied before use
    :param code_format: "raw" or "qcow2"
    :param variables_format: the same, of the variable store
    """

    code: Path
    variables: Path
    code_format: str
    variables_format: str


def find(directories: Sequence[Path] = DESCRIPTORS, *, hardware: Hardware = HARDWARE["amd64"]) -> Firmware:
    """Find UEFI firmware with a variable store and without Secure Boot.

    :param hardware: the machine that it is for
    :raises HostError: there is none
    """
    names: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.json")):
            names.setdefault(path.name, path)
    for _, path in sorted(names.items()):
        try:
            firmware = _firmware(json.loads(path.read_text()), hardware.uefi)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an empty file masks a descriptor on purpose, and one broken descriptor must not hide the others
        if firmware is not None and firmware.code.exists() and firmware.variables.exists():
            return firmware
    alternative = ", or boot without --uefi" if len(hardware.machines) > 1 else ""
    raise HostError(
        f"no UEFI firmware for {hardware.uefi} guests is installed",
        f"install the package {hardware.uefi_packages}{alternative}",
    )


def _firmware(descriptor: dict[str, Any], processor: str) -> Firmware | None:
    """Return the firmware that a descriptor describes, or None when it is not of the kind we want."""
    mapping = descriptor["mapping"]
    if "uefi" not in descriptor["interface-types"] or mapping["device"] != "flash":
        return None
    if mapping.get("mode", "split") != "split" or _UNWANTED & set(descriptor["features"]):
        return None
    if not any(_fits(target, processor) for target in descriptor["targets"]):
        return None
    code, variables = mapping["executable"], mapping["nvram-template"]
    if not {code["format"], variables["format"]} <= {"raw", "qcow2"}:
        return None
    return Firmware(Path(code["filename"]), Path(variables["filename"]), code["format"], variables["format"])


def _fits(target: dict[str, Any], processor: str) -> bool:
    machine = MACHINES[processor]
    return target["architecture"] == processor and any(fnmatch.fnmatch(machine, glob) for glob in target["machines"])
