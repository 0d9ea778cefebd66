"""Fedora, CentOS Stream, Rocky Linux and RHEL: from their cloud images, by their own dnf."""

from __future__ import annotations

from collections.abc import Mapping

from amphora_mkimage.bases.base import Base, Release
from amphora_mkimage.bases.published import PUBLISHED

#: What a disk needs for both firmwares; grub2-pc brings the modules of the one for a BIOS.
_BOOTLOADER = {"amd64": ("grub2-pc", "grub2-efi-x64", "shim-x64")}


#: /usr/bin/python3 of each release.
_PYTHONS = {"44": "3.14", "45": "3.14", "9": "3.9", "9-stream": "3.9", "10": "3.12", "10-stream": "3.12"}


#: Red Hat Enterprise Linux 10 and what is built from it are compiled for it.
_PROCESSORS = {"10": "x86-64-v3", "10-stream": "x86-64-v3"}


def _release(name: str) -> Release:
    return Release(name, python=_PYTHONS[name], processor=_PROCESSORS.get(name, ""))


def _base(name: str, default: str, releases: Mapping[str, Release], vendor: str = "") -> Base:
    return Base(
        name=name,
        distribution=name,
        default_release=default,
        releases=releases,
        kernels={"amd64": "kernel"},
        bootloader=_BOOTLOADER,
        dnf=True,
        published=True,
        vendor=vendor,
        fips=True,
        minimum_gib=3,
    )


def _of_series(name: str) -> Base:
    """Return a base that has the releases which are published."""
    series = PUBLISHED[name]
    return _base(name, series.default, {release: _release(release) for release in series.releases})


FEDORA = _of_series("fedora")
CENTOS = _of_series("centos")
ROCKY = _of_series("rocky")
#: Nothing of it is published without a subscription: the image is the user's own.
RHEL = _base("rhel", "10", {"9": _release("9"), "10": _release("10")}, vendor="redhat")
