"""The table of controllers and HAProxys is what the real ones say."""

from __future__ import annotations

import shutil
from pathlib import Path

import haproxy_check
import make_table
import pytest
import tried_releases

from amphora_mkimage import controllers

HERE = haproxy_check.HAProxy(["haproxy"])


@pytest.fixture(scope="module")
def releases(cache_dir: Path) -> Path:
    return cache_dir / "lab" / "octavia-releases"


@pytest.fixture(scope="module")
def of_this_host() -> str:
    """The branch of the HAProxy that is installed here."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed here")
    branch = ".".join(HERE.version.split(".")[:2])
    if branch not in {haproxy.branch for haproxy in controllers.table().haproxies}:
        pytest.skip(f"HAProxy {branch} is not in the table")
    return branch


@pytest.mark.parametrize("verdict", ["yes", "no"])
def test_the_table_says_what_the_haproxy_of_this_host_says(
    verdict: str, of_this_host: str, octavia_python: Path, releases: Path, tmp_path: Path
) -> None:
    table = controllers.table()
    release = next(r for r in reversed(table.releases) if bool(table.refused[r][of_this_host]) == (verdict == "no"))
    haproxy_check.make_certificates(tmp_path)
    said = haproxy_check.refused(octavia_python, tried_releases.octavia(release, releases), HERE, tmp_path)
    assert list(said) == table.refused[release][of_this_host], said


@pytest.mark.slow
def test_the_whole_table(octavia_python: Path, releases: Path) -> None:
    shipped = controllers.table()
    made = make_table.make(octavia_python, releases, shipped.releases)
    # Debian mends its packages; what counts is the branch.
    assert [(h.branch, h.suite) for h in made.haproxies] == [(h.branch, h.suite) for h in shipped.haproxies]
    assert made.refused == shipped.refused
    assert made.series == shipped.series
