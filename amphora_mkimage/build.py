"""Run a plan: resolve, bootstrap or unpack the base, run the stages, write the disk, publish.

The caller's process keeps the output files and waits; all work is done by process 1 of a namespace that it forks (see
:mod:`amphora_mkimage.guest.userns`), so an end of either, however sudden, ends everything. Where no namespace can be
had, :mod:`amphora_mkimage.appliance_worker` does the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from amphora_mkimage import appliance_worker, failures, guardian, manifest, memory, own_image, places, plain_paths, room
from amphora_mkimage.agent import configurations as agent_configurations
from amphora_mkimage.agent import install as agent_install
from amphora_mkimage.agent import package as agent_package
from amphora_mkimage.agent.errand import Errand
from amphora_mkimage.appliance_worker import ApplianceWorker
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases import bootstrap, customise, customise_dnf, image
from amphora_mkimage.bases.archive import Deb
from amphora_mkimage.bases.base import Made
from amphora_mkimage.console import Console
from amphora_mkimage.disk import bootloader, filesystems, formats, layout, selinux_labels
from amphora_mkimage.disk.bootloader import Bootloader
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest import choose, foreign, id_maps, processor, userns
from amphora_mkimage.guest.choose import Choice
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.output import Output, directory_lock, keep_old, manifest_path, record_sums
from amphora_mkimage.plan import Plan
from amphora_mkimage.probe import namespaces
from amphora_mkimage.request import Request
from amphora_mkimage.verify import in_build
from amphora_mkimage.work import Result, Worker, base_facts, open_archive, run_stages, wish
from amphora_mkimage.workplace import Workplace


def choose_guest(request: Request, console: Console) -> Choice:
    """Choose what the image is built in.

    :raises HostError: this host has nothing that can build it
    """
    choice = choose.choose(request.guest, console)
    if choice.kind == "namespace":  # an appliance may emulate a newer one
        release = request.base.releases[request.release]
        processor.require(release.processor, f"{request.base.name} {request.release}")
    if choice.kind == "appliance":
        appliance_worker.require(request, choice)
    return choice


def build(plan: Plan, guest: Choice, console: Console) -> list[dict[str, object]]:
    """Build the images of a plan and return the facts of each, as the manifest has them, with its path.

    :param guest: from :func:`choose_guest`
    :raises MkimageError: and subclasses; then no output exists and nothing is left behind
    """
    try:
        return _build(plan, guest, console)
    except MkimageError as error:
        explained = own_image.explain(error, plan.request)
        if explained is error:
            raise
        raise explained from error
    except OSError as error:
        raise failures.explain(error) from error


def _build(plan: Plan, guest: Choice, console: Console) -> list[dict[str, object]]:
    request = plan.request
    id_map = None
    if guest.kind == "namespace":
        namespaces.require(console)
        id_map = id_maps.plan()
        foreign.require(request.arch, id_map)
    with contextlib.ExitStack() as stack:
        wanted = ((request.output.parent, "-o"), (request.working_dir, "-w"), (request.cache_dir, "-c"))
        made = stack.enter_context(places.made(wanted))
        store = Store(request.cache_dir, console.warn)
        store.require_ours()
        memory_there = _memory(request, console, appliance=id_map is None)
        room.require(request, on_disk=memory_there is None)
        outputs = {kind: Output(path) for kind, path in request.outputs.items()}
        for output in outputs.values():
            stack.callback(output.close)
        targets = {kind: output.fd for kind, output in outputs.items()}
        plan = _with_branch(plan, store, console)
        if plan.agent is not None and id_map is None:
            agent_install.prepare(plan.agent, request.arch, store, console, snapshot=False)
        work = stack.enter_context(_working_directory(request.working_dir, id_map, made))
        place = Workplace(work, store, console)
        base = None
        if request.base.published:
            base = stack.enter_context(image.prepared(request, store, console, work))
        with memory.explained(in_tmpfs=memory_there is not None):
            alias = stack.enter_context(plain_paths.plain_name(work, link=id_map is None))
            if id_map is None:
                there = place if alias is None else dataclasses.replace(place, directory=alias)
                result = ApplianceWorker(plan, there, targets, base).run()
            else:
                errand = stack.enter_context(contextlib.closing(Errand(plan.agent, request.arch, store, console)))
                run = _Worker(plan, place, targets, base, errand, memory_there, alias).run
                warned = len(console.warnings)
                result = userns.run(run, id_map=id_map, on_end=place.remove, meanwhile=errand.run)
                console.timings.update(result.timings)
                console.warnings += result.warnings[warned:]
        with console.step("hash and publish"):
            return _publish(plan, guest, outputs, result, console)


def resolve(plan: Plan, console: Console) -> list[Deb]:
    """Ask the archive for the packages of a bootstrap, for --dry-run; none for a published base.

    :raises MkimageError: the archive cannot be read
    """
    if plan.request.base.published:
        return []
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-", dir=plain_paths.temporary()) as directory:
        archive = open_archive(plan, Path(directory), console)
        archive.update()
        debs = archive.resolve(["?essential", "apt", *plan.wanted])
        plan.check_size(sum(deb.installed_size for deb in debs))
        return debs


def _with_branch(plan: Plan, store: Store, console: Console) -> Plan:
    """Fetch the agent of a branch, if one is wanted: before all else, because much of it is not in our hands."""
    request = plan.request
    if request.branch is None:
        return plan
    try:
        # Its imports are its own: hosts that build the released agent need no python3-packaging.
        resolver = importlib.import_module("amphora_mkimage.agent.resolve")
    except ModuleNotFoundError as error:
        what = f"cannot resolve the packages of a branch: the Python package {error.name} is not installed"
        raise HostError(what, f"install the package python3-{error.name}") from error
    releases = request.base.releases
    pythons = {name: releases[name].python for name in request.base.usable(request.arch)}
    target = resolver.Target(releases[request.release].python, request.arch, not request.base.dnf, pythons)
    agent = resolver.resolve(request.branch, target, store, console)
    needed = [resolver.OF_DISTRIBUTION[module] for module in agent.modules]
    groups = {**plan.groups, "agent": needed} if needed else plan.groups
    return dataclasses.replace(plan, agent=agent, groups=groups)


def _memory(request: Request, console: Console, *, appliance: bool) -> int | None:
    """Return the bytes of memory that the build may work in; None: it works on disk."""
    if appliance or not request.use_tmpfs:
        return None
    found = memory.available()
    if found.enough:
        return found.free
    wanted = f"a build in memory takes {memory.TMPFS_BYTES >> 30} GiB"
    console.note(f"working on disk, as with -f: {found}, {wanted}")
    return None


@contextlib.contextmanager
def _working_directory(parent: Path, id_map: id_maps.IdMap | None, made: places.Made) -> Iterator[Path]:
    """Make a directory of our own; what others' ids own in it afterwards (-f, and the build was killed) goes too.

    :param made: what goes as well when this process is killed
    """
    work = Path(tempfile.mkdtemp(prefix=".amphora-mkimage-", dir=parent))
    try:
        with guardian.guarded(work, made.remove):
            yield work
    finally:
        try:
            shutil.rmtree(work)
        except PermissionError:
            if id_map is None:
                guardian.remove(work)
            else:
                userns.run(lambda: shutil.rmtree(work), id_map=id_map)
        except FileNotFoundError:
            pass


class _Worker(Worker):
    """The build inside the namespace.

    :param errand: brings the agent's packages meanwhile
    :param memory_there: bytes of memory to work in; None: on disk
    :param alias: an empty directory to work under the name of
    """

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        targets: dict[str, int],
        start: image.BaseImage | None,
        errand: Errand,
        memory_there: int | None,
        alias: Path | None,
    ) -> None:
        super().__init__(plan, place, targets, start)
        self.errand = errand
        self.memory_there = memory_there
        self.alias = alias

    def run(self) -> Result:
        """Do everything but publishing."""
        if self.alias is not None:
            userns.mount(os.fspath(self.place.directory), self.alias, "", userns.MS_BIND)
            self.place = dataclasses.replace(self.place, directory=self.alias)
        with contextlib.nullcontext() if self.memory_there is None else self.place.tmpfs(self.memory_there):
            return self._run()

    def _run(self) -> Result:
        self.place.store.prepare()
        base = self._make_base()
        guest = NamespaceGuest(self.place.tree, self.console)
        with guest.mounted():
            if self.plan.agent is not None:
                self.errand.wait(self.console)
                agent_install.install(self.plan.agent, guest, self.place)
            elif self.request.agent_packages:
                agent_package.check(guest, self.console)
            with self.console.step("configure"):
                installed = run_stages(self.plan, guest, self.console)
            configurations = agent_configurations.check(self.request, guest, self.console)
        filesystem_uuid = str(uuid.uuid4())
        if "tar" in self.targets:
            with self.console.step("write tar"):
                formats.archive(self.place.tree, self.targets["tar"], self.console)
        disks = [kind for kind in self.targets if kind != "tar"]
        loader = self._configure_bootloader(filesystem_uuid) if disks else None
        checked = in_build.check(guest, self.request, self.console)
        if loader is not None:
            disk = self._make_disk(guest, loader)
            for kind in disks:
                with self.console.step(f"write {kind}"):
                    formats.convert(disk, kind, self.targets[kind], self.console)
        guest.close()
        warnings = tuple(self.console.warnings)
        return Result(base, installed, filesystem_uuid, checked, self.console.timings, warnings, configurations)

    def _make_base(self) -> dict[str, object]:
        made = self._bootstrap() if self.start is None else self._customise(self.start)
        return base_facts(self.plan, made)

    def _bootstrap(self) -> Made:
        plan, request = self.plan, self.request
        archive = open_archive(plan, self.place.directory / "apt", self.console)
        return bootstrap.make(self.place, archive, plan.wanted, request.release, request.arch, plan.check_size)

    def _customise(self, start: image.BaseImage) -> Made:
        plan = self.plan
        if self.request.base.dnf:
            return customise_dnf.make(self.place, start, wish(plan), plan.check_size)
        return customise.make(
            self.place,
            start,
            functools.partial(open_archive, plan, self.place.directory / "apt", self.console),
            wish(plan),
            plan.check_size,
        )

    def _configure_bootloader(self, filesystem_uuid: str) -> Bootloader:
        request, console, scratch = self.request, self.console, self.place.directory
        architecture = ARCHITECTURES[request.arch]
        naming = bootloader.REDHAT if request.base.dnf else bootloader.DEBIAN
        loader = Bootloader(
            self.place.tree, naming, request.base.esp_folder, filesystem_uuid, scratch, console, architecture
        )
        with console.step("configure the bootloader"):
            loader.configure()
        return loader

    def _make_disk(self, guest: NamespaceGuest, loader: Bootloader) -> Path:
        request, console = self.request, self.console
        disk, scratch = self.place.directory / "disk.raw", self.place.directory
        labels = {}
        if request.base.dnf:
            # Not mounted: the directories that something is mounted on have labels of their own.
            with console.step("ask for SELinux labels"):
                labels = selinux_labels.labels(guest)
        with console.step("write the disk"):
            places = layout.partition(disk, request.size_gib, request.arch, console)
            filesystems.make_root(self.place.tree, disk, places.root, loader.uuid, console)
            if labels:
                selinux_labels.write(disk, places.root.offset, labels, scratch, console)
            if places.esp is not None:
                filesystems.make_esp(loader.esp_files(), disk, places.esp, scratch, console)
            loader.embed(disk, places.prep)
        shutil.rmtree(self.place.tree)  # its memory is wanted for the image's pages
        return disk


def _publish(
    plan: Plan, guest: Choice, outputs: dict[str, Output], result: Result, console: Console
) -> list[dict[str, object]]:
    request = plan.request
    agent = plan.agent.facts if plan.agent else None
    if request.agent_packages:
        agent = agent_package.facts(request, result.packages)
    if agent is not None and result.configurations is not None:
        agent = {**agent, "configurations": result.configurations}
    manifests: list[Output] = []
    published: list[dict[str, object]] = []
    try:
        for kind, output in outputs.items():
            facts: dict[str, object] = {"format": kind, "file": output.path.name, "bytes": output.size}
            facts["sha256"] = output.hash()
            if kind != "tar":
                facts |= {"virtual_size": request.size_gib * layout.GIB, "min_disk": request.size_gib}
                facts["filesystem_uuid"] = result.filesystem_uuid
            beside = Output(manifest_path(output.path))
            manifests.append(beside)
            published.append({"path": str(output.path), **facts, "manifest": str(beside.path)})
            beside.write(
                manifest.render(
                    request,
                    guest=guest.kind,
                    image=facts,
                    installed=result.packages,
                    base=result.base,
                    agent=agent,
                    checked=result.checked,
                    timings=console.timings,
                )
            )
        directory = request.output.parent
        with directory_lock(directory):
            renamed = {}
            for output in outputs.values():
                kept = None if request.overwrite else keep_old(output.path)
                if kept is not None:
                    renamed[output.path.name] = kept.name
                    console.note(f"the image that was there is now {kept}")
            for output in (*outputs.values(), *manifests):
                output.publish()
            record_sums(directory, {output.path.name: output.sha256 for output in outputs.values()}, renamed)
            return published
    except OSError as error:
        raise MkimageError(f"cannot write {error.filename or request.output}: {error.strerror}") from error
    finally:
        for beside in manifests:
            beside.close()
