"""Run a plan: resolve, bootstrap or unpack the base, run the stages, write the disk, publish.

The caller's process keeps the output files and waits; all work is done by process 1 of a namespace that it forks (see
:mod:`amphora_mkimage.guest.userns`), so an end of either, however sudden, ends everything.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import manifest, process, stages
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases import bootstrap, mirror
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, formats, layout
from amphora_mkimage.disk.bootloader import Bootloader
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest import foreign, userns
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.output import Output, directory_lock, keep_old, manifest_path, record_sums
from amphora_mkimage.plan import Plan

#: Memory that a build in a tmpfs takes: the tree, the packages, the disk's written blocks; measured in docs/time.md.
TMPFS_BYTES = 3 << 30

_CACHE = "free some space where the cache is, or keep it elsewhere with -c"


@dataclass(frozen=True)
class Result:
    """What a build reports from inside its namespace."""

    base: dict[str, object]
    packages: list[dict[str, str]]
    filesystem_uuid: str
    timings: dict[str, float]


def build(plan: Plan, console: Console) -> None:
    """Build the images of a plan.

    :raises MkimageError: and subclasses; then no output exists and nothing is left behind
    """
    request = plan.request
    id_map = userns.plan_id_map()
    foreign.require(request.arch, id_map)
    request.cache_dir.mkdir(parents=True, exist_ok=True)
    request.working_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        outputs = {kind: Output(path) for kind, path in request.outputs.items()}
        for output in outputs.values():
            stack.callback(output.close)
        work = stack.enter_context(_working_directory(request.working_dir, id_map))
        worker = _Worker(plan, console, work, {kind: output.fd for kind, output in outputs.items()})
        result = userns.run(worker.run, id_map=id_map, on_end=worker.clean)
        console.timings.update(result.timings)
        with console.step("hash and publish"):
            _publish(plan, outputs, result, console)


def resolve(plan: Plan, console: Console) -> list[Deb]:
    """Ask the archive for the packages of a plan, for --dry-run.

    :raises MkimageError: the archive cannot be read
    """
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
        archive = _archive(plan, Path(directory), console)
        archive.update()
        debs = archive.resolve(plan.wanted)
        plan.check_size(debs)
        return debs


def _archive(plan: Plan, directory: Path, console: Console) -> Archive:
    keyring = Path(plan.request.keyring)
    if not keyring.exists():
        raise HostError(
            f"the keyring {keyring} is not there, so the archive's signature cannot be checked",
            f"install the package {plan.request.base.keyring_package}, or name a keyring with DIB_APT_KEYRING",
        )
    network = mirror.apt_network_settings(os.environ)
    return Archive(directory, plan.request.arch, plan.sources, network, plan.archive.logins, console)


@contextlib.contextmanager
def _working_directory(parent: Path, id_map: userns.IdMap) -> Iterator[Path]:
    """Give a directory of our own; what others' ids own in it afterwards (-f, and the build was killed) goes too."""
    work = Path(tempfile.mkdtemp(prefix=".amphora-mkimage-", dir=parent))
    try:
        yield work
    finally:
        try:
            shutil.rmtree(work)
        except PermissionError:
            userns.run(lambda: shutil.rmtree(work), id_map=id_map)
        except FileNotFoundError:
            pass


class _Worker:
    """The build inside the namespace.

    :param work: an empty directory
    :param targets: descriptors to write the images to, by type
    """

    def __init__(self, plan: Plan, console: Console, work: Path, targets: dict[str, int]) -> None:
        self.plan = plan
        self.request = plan.request
        self.console = console
        self.work = work
        self.targets = targets
        self.tree = work / "tree"
        self.store = Store(plan.request.cache_dir, console.warn)

    def run(self) -> Result:
        """Do everything but publishing."""
        if self.request.use_tmpfs:
            self._mount_tmpfs()
        self.store.prepare()
        base = self._make_base()
        guest = NamespaceGuest(self.tree, self.console)
        with self.console.step("configure"):
            self._run_stages(guest)
        installed = manifest.packages(self.tree)
        guest.close()
        filesystem_uuid = str(uuid.uuid4())
        if "tar" in self.targets:
            with self.console.step("write tar"):
                formats.archive(self.tree, self.targets["tar"], self.console)
        disks = [kind for kind in self.targets if kind != "tar"]
        if disks:
            disk = self._make_disk(filesystem_uuid)
            for kind in disks:
                with self.console.step(f"write {kind}"):
                    formats.convert(disk, kind, self.targets[kind], self.console)
        return Result(base, installed, filesystem_uuid, self.console.timings)

    def clean(self) -> None:
        """Remove the working directory; called at the very end, also when the process outside has died."""
        with contextlib.suppress(OSError):
            userns.unmount(self.work)
        for _ in range(100):
            # More than once, because what was just killed, or another thread, may still add a file.
            shutil.rmtree(self.work, ignore_errors=True)
            if not self.work.exists():
                return
            time.sleep(0.05)

    def _mount_tmpfs(self) -> None:
        if _available_memory() < TMPFS_BYTES:
            self.console.note("not enough free memory to build in it: working on disk (as with -f)")
            return
        userns.mount("tmpfs", self.work, "tmpfs", 0, "mode=755")

    def _make_base(self) -> dict[str, object]:
        plan, console = self.plan, self.console
        archive = _archive(plan, self.work / "apt", console)
        with console.step("read the package archive"):
            archive.update()
            debs = archive.resolve(plan.wanted)
            plan.check_size(debs)
        key = plan.base_key(debs)
        kept = self.store.checked_base(key)
        new = [] if kept is not None else self._fetch(archive, debs)
        # All that came from outside is here and verified: nothing that runs in the image ever gets the network.
        userns.without_network()
        if kept is not None:
            with console.step("unpack the cached base"):
                self._unpack(kept)
        else:
            with console.step("bootstrap"):
                self._bootstrap(archive, new)
            with console.step("cache the base"):
                self._pack(key)
        return {
            "origin": plan.archive.origin,
            "mirror": plan.archive.main,
            "suites": [
                pattern.format(self.request.release)
                for pattern in self.request.base.releases[self.request.release].suites
            ],
            "key": key,
            "cached": kept is not None,
        }

    def _fetch(self, archive: Archive, debs: Sequence[Deb]) -> list[Deb]:
        """Take packages from the cache and fetch the others; gives those that were fetched."""
        with self.console.step("download packages"):
            new = [deb for deb in debs if not self.store.take_deb(deb.sha256, archive.archives / deb.file_name)]
            size = sum(deb.size for deb in new) / 1e6
            self.console.note(f"{len(debs) - len(new)} packages from the cache, {size:.0f} MB to download")
            if new:
                archive.download(debs)
        return new

    def _bootstrap(self, archive: Archive, new: Sequence[Deb]) -> None:
        """Bootstrap while the new packages go into the cache."""

        def keep() -> None:
            for deb in new:
                self.store.put_deb(deb.sha256, archive.archives / deb.file_name)

        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            kept = pool.submit(keep)
            bootstrap.bootstrap(
                self.tree, archive, self.plan.wanted, self.request.release, self.request.arch, self.console
            )
        kept.result()  # raises what went wrong there
        shutil.rmtree(archive.directory)

    def _pack(self, key: str) -> None:
        with self.store.writing_base(key) as file:
            argv = ["tar", "--create", f"--directory={self.tree}", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
            argv += ["--use-compress-program=zstd -1 -T0", f"--file=/proc/self/fd/{file.fileno()}", "."]
            process.run(argv, self.console, what="cannot cache the base", remedy=_CACHE, pass_fds=(file.fileno(),))

    def _unpack(self, kept: Path) -> None:
        self.tree.mkdir()
        argv = ["tar", "--extract", f"--directory={self.tree}", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        argv += ["--preserve-permissions", "--use-compress-program=zstd", f"--file={kept}"]
        process.run(argv, self.console, what="cannot unpack the cached base")

    def _run_stages(self, guest: NamespaceGuest) -> None:
        with guest.mounted():
            for stage in stages.wanted(self.request):
                self.console.activity(stages.name(stage))
                stage.run(guest, self.request)

    def _make_disk(self, filesystem_uuid: str) -> Path:
        request, console = self.request, self.console
        disk = self.work / "disk.raw"
        architecture = ARCHITECTURES[request.arch]
        loader = Bootloader(self.tree, request.base.distribution, filesystem_uuid, self.work, console, architecture)
        with console.step("configure the bootloader"):
            loader.configure()
        with console.step("write the disk"):
            places = layout.partition(disk, request.size_gib, request.arch, console)
            filesystems.make_root(self.tree, disk, places.root, filesystem_uuid, console)
            if places.esp is not None:
                filesystems.make_esp(loader.esp_files(), disk, places.esp, self.work, console)
            loader.embed(disk, places.prep)
        shutil.rmtree(self.tree)  # its memory is wanted for the image's pages
        return disk


def _publish(plan: Plan, outputs: dict[str, Output], result: Result, console: Console) -> None:
    request = plan.request
    manifests: list[Output] = []
    try:
        for kind, output in outputs.items():
            facts: dict[str, object] = {"format": kind, "file": output.path.name, "bytes": output.size}
            facts["sha256"] = output.hash()
            if kind != "tar":
                facts |= {"virtual_size": request.size_gib * layout.GIB, "filesystem_uuid": result.filesystem_uuid}
            beside = Output(manifest_path(output.path))
            manifests.append(beside)
            beside.write(
                manifest.render(
                    request, image=facts, installed=result.packages, base=result.base, timings=result.timings
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
    except OSError as error:
        raise MkimageError(f"cannot write {error.filename or request.output}: {error.strerror}") from error
    finally:
        for beside in manifests:
            beside.close()


def _available_memory() -> int:
    """Bytes of memory that can be had without swapping (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
