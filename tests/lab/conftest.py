"""The lab's upstreams, made once and kept in the cache of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redhat_image
import rpm_repository
from redhat import DISTRIBUTIONS
from rpm_repository import Repository
from serve import Site, Upstream, add_image, add_repositories

from amphora_mkimage.console import Console


@pytest.fixture(scope="session")
def lab_repository(cache_dir: Path) -> Callable[[str], Repository]:
    """Make or find the repositories of a distribution."""
    return lambda name: rpm_repository.repository(DISTRIBUTIONS[name], cache_dir, Console())


@pytest.fixture(scope="module")
def redhat_upstream(
    lab_repository: Callable[[str], Repository], cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Upstream]:
    """Serve a distribution on loopback: its repositories and, unless told otherwise, its cloud image."""
    sites: list[Site] = []

    def serve(name: str, *, image: bool = True) -> Site:
        root = tmp_path_factory.mktemp(name)
        repository = lab_repository(name)
        add_repositories(root, repository)
        if image:
            add_image(root, repository, redhat_image.image(repository, cache_dir, Console()))
        site = Site(root)
        sites.append(site.__enter__())
        return site

    yield serve
    for site in sites:
        site.__exit__(None, None, None)
