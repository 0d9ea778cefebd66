"""One small image, built in either guest from the same base and the same packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amphora_mkimage import accelerator, process, stages
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases import apt, bootstrap, mirror
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, formats, layout
from amphora_mkimage.disk.bootloader import DEBIAN, Bootloader
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.appliance import ApplianceBuild
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request

#: In the base: what the bootloader and the stages ask for; bootstrapped on the host, where it takes a minute.
BASE_PACKAGES = (
    *("ca-certificates", "debian-archive-keyring", "haproxy", "systemd-sysv"),
    *("grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"),
)
#: Installed in the guest: users of their own, a setuid program, what sets file capabilities, a service, an alternative.
PACKAGES = ("iputils-ping", "libcap2-bin", "rsyslog", "sudo", "tcpdump", "vim-tiny")
UUID = "0f5d2b1e-6a43-4c57-9d0e-1b1f2a3c4d5e"
SIZE_GIB = 1


@dataclass(frozen=True)
class Material:
    """What both builds start from.

    :param base: tar of the base
    :param offer: directory with :data:`PACKAGES` and what they need
    """

    base: Path
    offer: Path


def prepare(request: Request, work: Path, cache: Path, console: Console) -> Material:
    """Bootstrap the base and fetch the packages."""
    chosen = mirror.choose(request.base, request.release, "")
    sources = chosen.sources(request.base, request.release, request.keyring)
    network = mirror.apt_network_settings(os.environ)
    archive = Archive(work / "apt", request.arch, sources, network, chosen.logins, console)
    archive.update()
    store = Store(cache, console.warn)
    store.prepare()
    _fetch(archive, archive.resolve(["?essential", "apt", *BASE_PACKAGES]), store)
    base = work / "base.tar"
    hook = bootstrap.HOOKS / "bootstrap/setup00-archive"
    argv = ["mmdebstrap", "--variant=apt", "--skip=update", f"--architectures={request.arch}"]
    argv += [f"--include={','.join(BASE_PACKAGES)}", f'--setup-hook={hook} "$1"']
    argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    argv += [request.release, str(base), str(archive.directory / "sources.list")]
    env = process.environment({"AMPHORA_APT": str(archive.directory), "TMPDIR": str(work)})
    process.run(argv, console, what="cannot make the base", env=env)
    with tarfile.open(base) as tree:
        status = tree.extractfile("./var/lib/dpkg/status")
        assert status is not None
        (archive.directory / "status").write_bytes(status.read())
    shutil.rmtree(archive.archives)
    (archive.archives / "partial").mkdir(parents=True)
    debs = archive.resolve(PACKAGES, "dist-upgrade")
    _fetch(archive, debs, store)
    apt.offer(archive, debs, work / "offer", console)
    return Material(base, work / "offer")


def _fetch(archive: Archive, debs: Sequence[Deb], store: Store) -> None:
    new = [deb for deb in debs if not store.take_deb(deb.sha256, archive.archives / deb.file_name)]
    if new:
        archive.download(debs)
    for deb in new:
        store.put_deb(deb.sha256, archive.archives / deb.file_name)


def customise(guest: Guest, request: Request, console: Console) -> None:
    """Set a file capability, which no package here has, and run every stage of an ordinary image."""
    guest.command(["setcap", "cap_net_raw+ep", "/usr/bin/tcpdump"])
    with console.step("run the stages"):
        for stage in stages.wanted(request):
            stage.run(guest, request)


def in_namespace(request: Request, material: Material, work: Path, console: Console) -> tuple[Path, Path]:
    """Build in a namespace; the raw disk, and a tar of its tree, GRUB's configuration included."""
    tree, disk, target = work / "tree", work / "namespace.raw", work / "namespace.tar"

    def build() -> dict[str, float]:
        userns.without_network()
        tree.mkdir()
        argv = ["tar", "--extract", f"--file={material.base}", f"--directory={tree}", "--numeric-owner"]
        argv += ["--preserve-permissions", "--xattrs", "--xattrs-include=*", "--anchored", "--exclude=./dev/*"]
        with console.step("unpack the base"):
            process.run(argv, console, what="cannot unpack the base")
        guest = NamespaceGuest(tree, console)
        with console.step("install packages"), guest.mounted(), guest.offered(material.offer, apt.OFFERED):
            apt.install(guest, PACKAGES, ())
        with guest.mounted():
            customise(guest, request, console)
        guest.close()
        architecture = ARCHITECTURES[request.arch]
        loader = Bootloader(tree, DEBIAN, request.base.esp_folder, UUID, work, console, architecture)
        with console.step("install the bootloader"):
            loader.configure()
        with console.step("write the tar"), target.open("wb") as file:
            formats.archive(tree, file.fileno(), console)
        with console.step("finish the disk"):
            places = layout.partition(disk, SIZE_GIB, request.arch, console)
            filesystems.make_root(tree, disk, places.root, UUID, console)
            filesystems.make_esp(loader.esp_files(), disk, places.esp, work, console)
            loader.embed(disk)
        shutil.rmtree(tree)
        return console.timings

    console.timings.update(userns.run(build))
    return disk, target


@contextmanager
def appliance(base: Path, work: Path, console: Console, **options: Any) -> Iterator[ApplianceBuild]:
    """Start an appliance build in a directory of its own; options as of :class:`ApplianceBuild`."""
    work.mkdir()
    with ApplianceBuild(
        work,
        base,
        arch="amd64",
        filesystem_uuid=UUID,
        accelerator=accelerator.choose(console),
        console=console,
        **{"size_gib": SIZE_GIB, **options},
    ) as build:
        yield build


def in_appliance(request: Request, material: Material, work: Path, console: Console) -> tuple[Path, Path]:
    """Build in an appliance; the raw disk, and a tar of its tree."""
    target = work / "appliance.tar"
    with appliance(material.base, work / "appliance", console, offer=material.offer, tar=True) as build:
        with console.step("install packages"), build.guest.mounted(), build.offered(apt.OFFERED):
            apt.install(build.guest, PACKAGES, ())
        with build.guest.mounted():
            customise(build.guest, request, console)
        with console.step("install the bootloader"):
            build.install_bootloader(DEBIAN, request.base.distribution)
        with console.step("write the tar"), target.open("wb") as file:
            build.write_tar(file.fileno())
        with console.step("finish the disk"):
            disk = build.finish()
    return disk, target


def tiny_base(target: Path, programs: Sequence[str]) -> Path:
    """Make a tar of a tree in which some programs of the host run."""
    libraries: set[str] = set()
    with tarfile.open(target, "w") as archive:
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var"):
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name in programs:
            path = shutil.which(name)
            assert path is not None, name
            archive.add(Path(path).resolve(), f"./bin/{name}")
            listing = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            libraries.update(word for word in listing.split() if word.startswith("/"))
        for library in sorted(libraries):
            archive.add(Path(library).resolve(), f".{library}")
    return target
