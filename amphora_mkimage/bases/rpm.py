"""Read the package database of a guest of Red Hat's family (rpm(8))."""

from __future__ import annotations

from dataclasses import dataclass

from amphora_mkimage.guest.protocol import Guest

_FORMAT = r"%{NAME}\t%{EVR}\t%{ARCH}\t%{LONGSIZE}\n"


@dataclass(frozen=True)
class Installed:
    """One installed package.

    :param version: with release, and with epoch where there is one
    :param size: bytes of its content
    """

    name: str
    version: str
    arch: str
    size: int


def installed(guest: Guest) -> list[Installed]:
    """Give every installed package, by name; keys, which rpm lists among them, are left out."""
    lines = guest.command(["rpm", "-qa", "--qf", _FORMAT]).splitlines()
    found = [
        Installed(name, version, arch, int(size)) for name, version, arch, size in (line.split("\t") for line in lines)
    ]
    packages = (package for package in found if package.name != "gpg-pubkey")
    return sorted(packages, key=lambda package: (package.name, package.arch))
