"""Which controllers an image serves: the releases of Octavia against the HAProxy in the image.

It is the controller that writes HAProxy's configuration, so an image that runs under one release of Octavia may refuse
what another writes. ``files/controllers.toml`` has what was tried; ``tests/controllers`` makes it.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import BadValueError

DATA = Path(__file__).with_name("files") / "controllers.toml"
_RELEASE = re.compile(r"\d+(\.\d+){0,2}")


@dataclass(frozen=True)
class HAProxy:
    """A HAProxy that was tried.

    :param branch: "3.0"
    :param version: of the distribution's package
    :param suite: the release of the distribution that has it
    """

    branch: str
    version: str
    distribution: str
    suite: str


@dataclass(frozen=True)
class Table:
    """What was tried.

    :param series: names of OpenStack's releases by the major version of octavia
    :param haproxies: oldest first
    :param refused: names of the features that are refused, by release of octavia and branch of HAProxy
    """

    series: Mapping[int, str]
    haproxies: Sequence[HAProxy]
    refused: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def releases(self) -> list[str]:
        """Releases of octavia that were tried, oldest first."""
        return sorted(self.refused, key=_numbers)

    def of_series(self, name: str) -> list[str]:
        """Return the releases that were tried of one of OpenStack's, oldest first."""
        return [release for release in self.releases if self.series.get(_numbers(release)[0]) == name]

    def find(self, text: str, origin: str) -> str:
        """Return the oldest release of octavia that a user means.

        :param text: a series as "2025.1", or a release as "16.0", "16.0.1"
        :param origin: of the text, for messages
        :raises BadValueError: it is neither, or was not tried
        """
        found = self.of_series(text)
        if not found and _RELEASE.fullmatch(text):
            found = [release for release in self.releases if f"{release}.".startswith(f"{text}.")]
        if found:
            return found[0]
        series, releases = list(self.series.values()), self.releases
        raise BadValueError(
            f"{origin}: {text!r} is not a release of Octavia that was tried with any HAProxy",
            f"accepted: {', '.join(series)}, or a version from {releases[0]} to {releases[-1]} (docs/controllers.md)",
        )

    def nearest(self, version: str) -> str:
        """Return the newest release that is not newer than a version, as "19.0.1.dev3"; "" where all are."""
        numbers = _numbers(version)
        return next((release for release in reversed(self.releases) if numbers and _numbers(release) <= numbers), "")

    def of_branch(self, ref: str) -> str:
        """Return the release that a branch or tag of octavia comes nearest to; "" where its name does not tell."""
        name = ref.rpartition("/")[2]
        return name if name in self.refused else next(reversed(self.of_series(name)), "")

    def haproxy(self, distribution: str, suite: str) -> HAProxy | None:
        """Return the HAProxy of a release of a distribution; None where it was not tried."""
        return next((h for h in self.haproxies if (h.distribution, h.suite) == (distribution, suite)), None)

    def verdict(self, octavia: str, haproxy: str) -> Sequence[str] | None:
        """Return the features that a HAProxy refuses.

        :param octavia: a version
        :param haproxy: a version; those of one branch ("3.0") have one verdict
        :returns: None where it was not tried
        """
        branch = ".".join(haproxy.split(".")[:2])
        return self.refused.get(self.nearest(octavia), {}).get(branch)

    def named(self, octavia: str) -> str:
        """Return a release with its series, as "Octavia 16.0.0 (2025.1)"."""
        series = self.series.get(next(iter(_numbers(octavia)), 0))
        return f"Octavia {octavia}" + (f" ({series})" if series else "")


@functools.cache
def table() -> Table:
    """Return the table that this program was shipped with."""
    data = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return Table(
        {int(major): name for major, name in data["series"].items()},
        [HAProxy(**entry) for entry in data["haproxy"]],
        data["refused"],
    )


def best_suite(octavia: str, distribution: str, suites: Sequence[str], default: str) -> str:
    """Return the release of a distribution whose HAProxy refuses least of what a controller writes.

    Of several the default, else the newest.

    :param octavia: a version, "" where it is not known
    :param suites: names of the releases to choose from, oldest first
    :param default: the one that is taken where the table says nothing
    """
    refused = {suite: _refused(octavia, distribution, suite) for suite in suites}
    if not octavia or not refused.get(default):
        return default
    tried = [suite for suite in suites if refused[suite] is not None]
    return min(reversed(tried), key=lambda suite: (len(refused[suite] or ()), suite != default))


def remark(octavia: str, distribution: str, suite: str, *, said: bool) -> str:
    """Return what a user should know of an image and its controllers, "" where all is well.

    :param octavia: version of the oldest controller, "" where it is not known
    :param said: the user named it
    """
    haproxy, known = table().haproxy(distribution, suite), table().named(octavia)
    if not octavia or (haproxy is None and not said):
        return ""
    if haproxy is None:
        return f"whether the HAProxy of {distribution} {suite} takes what {known} writes was not tried"
    refused = table().verdict(octavia, haproxy.version)
    if not refused:
        return ""
    return f"{suite}'s HAProxy {haproxy.branch} refuses what {known} writes for {', '.join(refused)}"


def markdown() -> str:
    """Return the table of docs/controllers.md."""
    known = table()
    heads = [f"{h.branch} ({h.suite})" for h in known.haproxies]
    rows = [f"| Octavia | | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for release in reversed(known.releases):
        cells = [_cell(known.refused[release][h.branch]) for h in known.haproxies]
        rows.append(f"| {release} | {known.series[_numbers(release)[0]]} | {' | '.join(cells)} |")
    versions = ", ".join(f"{h.version} ({h.suite})" for h in known.haproxies)
    return "\n".join([*rows, "", f"Tried with the packages haproxy {versions}.", ""])


def _cell(refused: Sequence[str]) -> str:
    return f"**no**: {', '.join(refused)}" if refused else "yes"


def _refused(octavia: str, distribution: str, suite: str) -> Sequence[str] | None:
    haproxy = table().haproxy(distribution, suite)
    return table().verdict(octavia, haproxy.version) if haproxy else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version starts with: 16.0.1 for "16.0.1.dev3"."""
    match = re.match(r"\d+(\.\d+){0,2}", version)
    return tuple(map(int, match[0].split("."))) if match else ()
