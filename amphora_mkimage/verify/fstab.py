"""fstab(5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FstabEntry:
    """A line of fstab."""

    spec: str
    mountpoint: str
    type: str
    options: tuple[str, ...]


def parse_fstab(text: str) -> list[FstabEntry]:
    """Read the entries in order; broken lines are left out, as mount(8) does."""
    entries = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        spec, mountpoint, kind = (_unescape(field) for field in fields[:3])
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ()
        entries.append(FstabEntry(spec, mountpoint, kind, options))
    return entries


def names(spec: str, filesystem: Mapping[str, str], device: str) -> bool:
    """Tell whether a spec (``LABEL=x``, a device) means this filesystem.

    :param filesystem: what blkid(8) says of it
    :param device: as the appliance names it
    """
    tag, separator, value = spec.strip('"').partition("=")
    value = value.strip('"')
    if separator and tag in _TAGS:
        known = filesystem.get(_TAGS[tag], "")
        # UUIDs are compared without case: blkid prints those of vfat in capitals.
        return known.lower() == value.lower() if "UUID" in tag else bool(value) and known == value
    return _device_name(spec) == _device_name(device)


_TAGS = {
    "UUID": "UUID",
    "LABEL": "LABEL",
    "PARTUUID": "PART_ENTRY_UUID",
    "PARTLABEL": "PART_ENTRY_NAME",
}


def _device_name(path: str) -> str:
    """Make /dev/vda1 and /dev/sda1, /dev/mapper/vg-lv and /dev/vg/lv comparable."""
    path = re.sub(r"^/dev/(?:[hsv]|xv)d([a-z]\d*)$", r"/dev/sd\1", path)
    mapped = re.fullmatch(r"/dev/mapper/((?:[^-]|--)+)-((?:[^-]|--)+)", path)
    if mapped:
        path = f"/dev/{mapped[1].replace('--', '-')}/{mapped[2].replace('--', '-')}"
    return path


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
