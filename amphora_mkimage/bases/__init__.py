"""One module a distribution: where its root filesystem comes from and how its parts are called."""

from __future__ import annotations

from amphora_mkimage.bases.base import Base, Release
from amphora_mkimage.bases.debian import DEBIAN, DEBIAN_MINIMAL
from amphora_mkimage.bases.ubuntu import UBUNTU, UBUNTU_MINIMAL

BASES: dict[str, Base] = {base.name: base for base in (UBUNTU, UBUNTU_MINIMAL, DEBIAN, DEBIAN_MINIMAL)}

__all__ = ["BASES", "Base", "Release"]
