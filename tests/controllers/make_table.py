"""Make amphora_mkimage/files/controllers.toml anew: which HAProxy takes what which release of Octavia writes.

    python tests/controllers/make_table.py PYTHON CACHE RELEASE...

PYTHON has octavia with all that it needs (tests/conftest.py makes one), CACHE is where releases of octavia are kept.
Prints the file; ``test_table.py`` compares the shipped one with this.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tried_releases
from haproxy_check import HAProxy as Program
from haproxy_check import make_certificates, refused

from amphora_mkimage.controllers import HAProxy, Table

#: OpenStack's releases by the major version of octavia.
SERIES = {14: "2024.1", 15: "2024.2", 16: "2025.1", 17: "2025.2", 18: "2026.1", 19: "2026.2"}
_HEAD = """\
# Which HAProxy takes the configurations that which release of Octavia writes, by octavia's own samples and templates.
# Made by tests/controllers/make_table.py; do not edit.

"""


def make(python: Path, cache: Path, releases: Sequence[str]) -> Table:
    """Try all releases of octavia against all HAProxys."""
    verdicts: dict[str, dict[str, Sequence[str]]] = {release: {} for release in releases}
    tried: list[HAProxy] = []
    with tempfile.TemporaryDirectory() as place:
        for suite in tried_releases.SUITES:
            haproxy, entry = tried_releases.debian(suite, Path(place, suite))
            tried.append(entry)
            with ThreadPoolExecutor(2) as pool:
                found = list(pool.map(functools.partial(_try, python, cache, haproxy, Path(place)), releases))
            for release, said in zip(releases, found, strict=True):
                for name, alert in said.items():
                    sys.stderr.write(f"octavia {release}, HAProxy {haproxy.version}, {name}: {alert}\n")
                verdicts[release][entry.branch] = list(said)
    return Table(SERIES, tried, verdicts)


def _try(python: Path, cache: Path, haproxy: Program, place: Path, release: str) -> dict[str, str]:
    directory = Path(tempfile.mkdtemp(dir=place))
    make_certificates(directory)
    return refused(python, tried_releases.octavia(release, cache), haproxy, directory)


def text(table: Table) -> str:
    """Return a table as TOML."""
    lines = ["[series]", *(f'{major} = "{name}"' for major, name in table.series.items())]
    for haproxy in table.haproxies:
        lines += ["", "[[haproxy]]", *(f'{name} = "{value}"' for name, value in vars(haproxy).items())]
    for release in table.releases:
        lines += ["", f'[refused."{release}"]']
        lines += [f'"{branch}" = {_array(names)}' for branch, names in table.refused[release].items()]
    return _HEAD + "\n".join(lines) + "\n"


def _array(names: Sequence[str]) -> str:
    return "[" + "".join(f'\n    "{name}",' for name in names) + ("\n]" if names else "]")


def main(python: str, cache: str, *releases: str) -> None:
    """Print the table."""
    sys.stdout.write(text(make(Path(python), Path(cache), releases)))


if __name__ == "__main__":
    main(*sys.argv[1:])
