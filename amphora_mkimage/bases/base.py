"""What the rest of the program knows about a base system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Release:
    """One release of a base system.

    :param codename: its suite in the archive
    :param suites: name patterns of all suites that a complete system takes; ``{}`` is the codename
    :param refused: why no amphora can be made of it, or ""
    :param lacks: what it lacks that other releases have, by architecture
    """

    codename: str
    suites: tuple[str, ...]
    refused: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """A base system: bootstrapped from an apt archive, or made from a root filesystem that is published.

    :param name: what ``-i`` calls it
    :param distribution: its os-release ID; also names its file in ``package_lists/`` and its folder on the ESP
    :param default_release: codename of the current stable
    :param releases: known releases by codename
    :param components: archive components
    :param keyring: path of the archive's keyring, on the host and in the image
    :param keyring_package: what installs it on the host
    :param kernels: kernel package for virtual machines, by architecture
    :param bootloader: packages that bring the bootloader, by architecture
    :param published: it starts from a root filesystem that the distribution publishes
    :param minimum_gib: smallest disk that its content fits on
    :param ports: architectures that are in an archive of their own, not in the one of the others
    """

    name: str
    distribution: str
    default_release: str
    releases: Mapping[str, Release]
    components: tuple[str, ...]
    keyring: str
    keyring_package: str
    kernels: Mapping[str, str]
    bootloader: Mapping[str, tuple[str, ...]]
    published: bool = False
    minimum_gib: int = 1
    ports: frozenset[str] = frozenset()

    def usable(self, arch: str) -> list[str]:
        """Give the codenames of the releases that can be built for an architecture, oldest first."""
        return [name for name, release in self.releases.items() if not release.refused and arch not in release.lacks]

    def default_for(self, arch: str) -> str:
        """Give the release that is built for an architecture when none is named."""
        usable = self.usable(arch)
        return self.default_release if self.default_release in usable else usable[-1]


@dataclass(frozen=True)
class Made:
    """A base that was made.

    :param key: of its snapshot in the cache
    :param cached: whether it came from there
    :param facts: more about its origin, for the manifest
    """

    key: str
    cached: bool
    facts: Mapping[str, object] = field(default_factory=dict)
