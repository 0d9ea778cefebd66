"""From a request to the steps of its build: printable, and without any effect on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amphora_mkimage import packages, stages
from amphora_mkimage.agent import install as agent_install
from amphora_mkimage.bases import bootstrap, image, mirror
from amphora_mkimage.bases.archive import Deb
from amphora_mkimage.disk import filesystems, layout
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest.choose import Choice
from amphora_mkimage.request import Request


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    :param groups: wanted packages by role
    :param archive: the mirror, credentials apart
    :param sources: sources.list text, as the tree gets it
    :param agent: the amphora agent's files; None when it is left out or a package, and until the branch was looked at
    """

    request: Request
    groups: Mapping[str, Sequence[str]]
    archive: mirror.Mirror
    sources: str
    agent: agent_install.Agent | None

    @property
    def wanted(self) -> list[str]:
        """All wanted packages."""
        return sorted({package for group in self.groups.values() for package in group})

    @property
    def unwanted(self) -> list[str]:
        """Packages that go where a published base image has them."""
        return packages.unwanted(self.request)

    def base_key(self, debs: Sequence[Deb]) -> str:
        """Give the cache key of the bootstrapped base."""
        return bootstrap.key(debs, self.request.arch, self.request.release, self.sources)

    def check_size(self, installed: int) -> None:
        """Refuse a disk that the packages will not fit on.

        :param installed: bytes of their content
        :raises BadValueError: -s is too small
        """
        if all(kind == "tar" for kind in self.request.types):
            return
        environment = self.request.agent_source in ("released", "branch")
        needed = filesystems.needed_bytes(installed + (agent_install.INSTALLED_BYTES if environment else 0))
        if needed > layout.root_capacity(self.request.size_gib):
            least = next(size for size in range(1, 1 << 20) if needed <= layout.root_capacity(size))
            raise BadValueError(f"-s: {self.request.size_gib} GiB are too small for the content", f"at least {least}")

    def describe(self, debs: Sequence[Deb], store: Store, guest: Choice) -> str:
        """Give the text of --dry-run.

        :param debs: package files of a bootstrap; what a published image takes is known only when it is here
        """
        request = self.request
        origin = self._published() if request.base.published else self._bootstrapped(debs, store)
        lines = [f"base      {request.base.name} {request.release} {request.arch}, from {self.archive.origin}", *origin]
        lines += [f"          {role}: {' '.join(sorted(names))}" for role, names in self.groups.items()]
        lines += self._archives()
        lines += self._agent(store)
        titles = [f"{stages.name(stage)}: {stages.title(stage)}" for stage in stages.wanted(request)]
        lines += _column("stages", titles)
        lines += _column("settings", [f"{name}: {_plain(value)}" for name, value in request.summary.items()])
        lines += _column("guest", [str(guest)])
        lines += _column("outputs", [str(path) for path in request.outputs.values()])
        return "\n".join(lines)

    def facts(self, debs: Sequence[Deb], store: Store, guest: Choice) -> dict[str, object]:
        """Return what --dry-run --json prints: the same for machines.

        :param debs: as for :meth:`describe`
        """
        request, agent = self.request, self.agent
        return {
            "base": {
                "name": request.base.name,
                "release": request.release,
                "arch": request.arch,
                "origin": self.archive.origin,
                "starts_from": image.describe(request) if request.base.published else "the archive",
                "cached": None if request.base.published else store.has_base(self.base_key(debs)),
            },
            "suites": self._suites(),
            "packages": {
                "wanted": {role: sorted(names) for role, names in self.groups.items()},
                "files": [{"name": deb.name, "version": deb.version, "bytes": deb.size} for deb in debs],
                "bytes": sum(deb.size for deb in debs),
                "cached_bytes": sum(deb.size for deb in debs if store.has_deb(deb.sha256)),
            },
            "agent": {
                "source": request.agent_source,
                "version": agent.version if agent else None,
                "ref": request.branch.agent.ref if request.branch else None,
                "cached": store.has_base(agent.key) if agent else None,
            },
            "stages": [{"name": stages.name(s), "title": stages.title(s)} for s in stages.wanted(request)],
            "settings": request.summary,
            "guest": {"kind": guest.kind, "reason": guest.reason},
            "outputs": {kind: str(path) for kind, path in request.outputs.items()},
        }

    def _archives(self) -> list[str]:
        """Name what is fetched from where."""
        lines = _column("archive", [f"{url}: {' '.join(names)}" for url, names in self._suites().items()])
        if self.request.dated_mirror:
            lines += _column("dates", ["indexes that have expired are accepted (--dated-mirror)"])
        return lines

    def _suites(self) -> dict[str, list[str]]:
        """Return the suites by the URL of their archive; none where the base image names its repositories."""
        request = self.request
        urls: dict[str, list[str]] = {}
        for source in () if request.base.dnf else self.archive.suites(request.base, request.release):
            urls.setdefault(source.url, []).append(source.suite)
        return urls

    def _agent(self, store: Store) -> list[str]:
        request = self.request
        if self.agent is not None:
            return [f"agent     octavia {self.agent.version} for Python {self.agent.python}, {self._kept(store)}"]
        if request.branch is not None:
            constraints = request.branch.constraints.shown
            return _column("agent", [str(request.branch), f"under the constraints {constraints}"])
        return ["agent     the distribution's package"] if request.agent_packages else []

    def _kept(self, store: Store) -> str:
        assert self.agent is not None
        if store.has_base(self.agent.key):
            return "installed environment is cached"
        kept = sum(store.has_wheel(package.sha256) for package in self.agent.packages)
        return f"{len(self.agent.packages)} packages, of which {kept} are cached"

    def _bootstrapped(self, debs: Sequence[Deb], store: Store) -> list[str]:
        base_kept = store.has_base(self.base_key(debs))
        kept = sum(deb.size for deb in debs if store.has_deb(deb.sha256))
        total = sum(deb.size for deb in debs)
        return [
            f"          {'bootstrapped base is cached' if base_kept else 'to be bootstrapped'}",
            f"packages  {len(debs)} packages, {total / 1e6:.0f} MB, of which {kept / 1e6:.0f} MB are cached",
        ]

    def _published(self) -> list[str]:
        return [
            f"          starts from {image.describe(self.request)}",
            "packages  all that the image has, brought up to date, and with their dependencies:",
        ]


def make(request: Request) -> Plan:
    """Choose the mirror and collect the packages."""
    archive = mirror.choose(request.base, request.release, request.mirror, request.arch, request.layout)
    sources = archive.sources(request.base, request.release, request.keyring)
    python = request.base.releases[request.release].python
    agent = agent_install.choose(python, request.arch) if request.agent_source == "released" else None
    return Plan(request, packages.groups(request), archive, sources, agent)


def _plain(value: object) -> str:
    """Return a setting's value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _column(head: str, entries: Sequence[str]) -> list[str]:
    return [f"{head if number == 0 else '':10}{entry}" for number, entry in enumerate(entries)]
