"""One module a distribution: where its root filesystem comes from and how its parts are called."""

from __future__ import annotations

from dataclasses import replace

from amphora_mkimage.bases.base import Base, Release
from amphora_mkimage.bases.debian import DEBIAN_MINIMAL
from amphora_mkimage.bases.published import PUBLISHED
from amphora_mkimage.bases.redhat import CENTOS, FEDORA, RHEL, ROCKY
from amphora_mkimage.bases.ubuntu import UBUNTU_MINIMAL


def _from_image(minimal: Base) -> Base:
    """Give the base that starts from the published image of a system that can be bootstrapped as well."""
    series = PUBLISHED[minimal.distribution]
    known = {name: release for name, release in minimal.releases.items() if release.refused or name in series.releases}
    return replace(
        minimal,
        name=minimal.distribution,
        published=True,
        default_release=series.default,
        releases=known,
        kernels={arch: name for arch, name in minimal.kernels.items() if arch in series.architectures},
        bootloader={arch: names for arch, names in minimal.bootloader.items() if arch in series.architectures},
    )


_APT = (_from_image(UBUNTU_MINIMAL), UBUNTU_MINIMAL, _from_image(DEBIAN_MINIMAL), DEBIAN_MINIMAL)
_ALL = (*_APT, FEDORA, CENTOS, ROCKY, RHEL)
BASES: dict[str, Base] = {base.name: base for base in _ALL}

__all__ = ["BASES", "Base", "Release"]
