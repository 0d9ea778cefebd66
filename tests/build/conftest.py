"""What the real builds share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ubuntu
from static_server import serving

SeedCache = Callable[..., Path]


@pytest.fixture
def seed_cache(built: object, cache_dir: Path, tmp_path: Path) -> SeedCache:
    """Make a cache of one's own with the packages that the first build fetched, and on demand its base too."""

    def seed(place: Path | None = None, *, bases: bool = False, owner: tuple[int, int] | None = None) -> Path:
        place = place or tmp_path / "cache"
        for part in ("debs", "bases") if bases else ("debs",):
            target = place / "amphora-mkimage" / part
            target.mkdir(parents=True)
            for file in (cache_dir / "amphora-mkimage" / part).iterdir():
                if not file.name.startswith(".partial-"):
                    shutil.copy2(file, target)
        if owner is not None:
            for path in (place, *place.rglob("*")):
                os.chown(path, *owner)
        return place

    return seed


@dataclass(frozen=True)
class Served:
    """A lab on loopback, and what points the tool to it."""

    lab: ubuntu.UbuntuLab
    environment: dict[str, str]


@pytest.fixture(scope="session")
def ubuntu_lab(cache_dir: Path) -> Iterator[Served]:
    """Ubuntu's upstreams, made of Debian's packages."""
    lab = ubuntu.make(cache_dir / "lab")
    with serving(lab.root) as url:
        yield Served(lab, lab.environment(url))
