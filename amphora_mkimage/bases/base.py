"""What the rest of the program knows about a base system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Release:
    """One release of a base system.

    :param codename: its suite in the archive
    :param suites: name patterns of all suites that a complete system takes; ``{}`` is the codename; of apt bases
    :param refused: why no amphora is made of it, whatever the agent, or ""
    :param lacks: what it lacks that other releases have, by architecture
    :param python: version of its Python, for which the amphora agent is fetched before the image is there
    :param processor: level of x86-64 that its programs need (:mod:`amphora_mkimage.guest.processor`), or ""
    """

    codename: str
    suites: tuple[str, ...] = ()
    refused: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    processor: str = ""


@dataclass(frozen=True)
class Base:
    """A base system: bootstrapped from an apt archive, or made from a root filesystem.

    :param name: what ``-i`` calls it
    :param distribution: its os-release ID; also names its file in ``package_lists/``
    :param default_release: name of the current stable
    :param releases: known releases by name
    :param kernels: kernel package for virtual machines, by architecture
    :param bootloader: packages that bring the bootloader, by architecture
    :param dnf: packages come by the dnf of the image, and not by apt from an archive that this host reads
    :param components: archive components; of apt bases
    :param keyring: path of the archive's keyring, on the host and in the image; of apt bases
    :param keyring_package: what installs it on the host; of apt bases
    :param published: it starts from a root filesystem, the distribution's or the user's own, and not from an archive
    :param vendor: its folder on the ESP where that is not called like the distribution
    :param fips: it has a FIPS mode that needs no subscription
    :param minimum_gib: smallest disk that its content fits on
    :param ports: architectures that are in an archive of their own, not in the one of the others
    """

    name: str
    distribution: str
    default_release: str
    releases: Mapping[str, Release]
    kernels: Mapping[str, str]
    bootloader: Mapping[str, tuple[str, ...]]
    dnf: bool = False
    components: tuple[str, ...] = ()
    keyring: str = ""
    keyring_package: str = ""
    published: bool = False
    vendor: str = ""
    fips: bool = False
    minimum_gib: int = 1
    ports: frozenset[str] = frozenset()

    @property
    def esp_folder(self) -> str:
        """Folder on the ESP where the signed GRUB looks for its configuration."""
        return self.vendor or self.distribution

    def usable(self, arch: str) -> list[str]:
        """Give the codenames of the releases that can be built for an architecture, oldest first."""
        return [name for name, release in self.releases.items() if not release.refused and arch not in release.lacks]

    def named(self) -> list[str]:
        """Return the names of the releases that are not refused, oldest first."""
        return [name for name, release in self.releases.items() if not release.refused]

    def default_for(self, arch: str) -> str:
        """Give the release that is built for an architecture when none is named."""
        usable = self.usable(arch)
        return self.default_release if self.default_release in usable else usable[-1]


@dataclass(frozen=True)
class Wish:
    """What is made of a base image.

    :param release: name of the release
    :param wanted: names of all wanted packages, among them the kernel
    :param unwanted: names of packages that go where they are there
    :param kernel: name of the kernel package
    :param mirror: URL that dnf is to use, with credentials if it has any; "" for the repositories that the image names
    :param fips: the initramfs can start the system in FIPS mode
    """

    base: Base
    release: str
    wanted: Sequence[str]
    unwanted: Sequence[str]
    kernel: str
    mirror: str = field(default="", repr=False)
    fips: bool = False


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
