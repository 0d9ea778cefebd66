"""A build where no namespace can be had: the host fetches and verifies, libguestfs' appliance installs.

The order of the steps is that of a build in a namespace. Nothing of the image is ever run, owned or mounted by this
host: the base image becomes a tar (:func:`amphora_mkimage.unpack.plain`), and the rest happens in the appliance. The
packages of Red Hat's family are fetched and verified there, too, because only the image has their package manager.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from amphora_mkimage import accelerator, failures, work
from amphora_mkimage.agent import configurations as agent_configurations
from amphora_mkimage.agent import install as agent_install
from amphora_mkimage.agent import package as agent_package
from amphora_mkimage.bases import apt, customise, customise_dnf, dnf, unpacked
from amphora_mkimage.bases.archive import fetching
from amphora_mkimage.bases.base import Made
from amphora_mkimage.bases.customise_dnf import Network
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.disk import formats
from amphora_mkimage.disk.bootloader import DEBIAN, REDHAT
from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import appliance_network
from amphora_mkimage.guest.appliance import ApplianceBuild
from amphora_mkimage.guest.choose import ASKED, Choice
from amphora_mkimage.request import Request
from amphora_mkimage.stages import inherited
from amphora_mkimage.verify import in_build
from amphora_mkimage.work import Result, Worker

#: GiB of the disk where only a tar is wanted, for which -s means nothing; where nothing is written it takes no space.
_TAR_GIB = 16
#: Directory of the agent's packages among what the guest is offered.
_AGENT = "agent"
#: Makes the finished base in the appliance.
Install = Callable[[ApplianceBuild], Made]


def require(request: Request, choice: Choice) -> None:
    """Refuse what an appliance cannot build.

    :raises HostError: with what would allow it
    """
    why = other = ""
    if request.arch != "amd64" or os.uname().machine != "x86_64":
        why = f"an appliance on {os.uname().machine} cannot build for {request.arch}"
    elif not request.base.published:
        why = f"-i {request.base.name} is bootstrapped, which cannot be done in an appliance"
        other = f", or take -i {request.base.distribution}"
    if why:
        cause = "" if choice.reason == ASKED else f", and {choice.reason}"
        remedy = choice.remedy or "build in a namespace (--guest namespace)"
        raise HostError(f"{why}{cause}", f"{remedy}{other}")


class ApplianceWorker(Worker):
    """A build in the appliance, of a published base."""

    def run(self) -> Result:
        """Do everything but publishing.

        :raises MkimageError: something failed; the appliance has ended
        """
        try:
            return self._run()
        except OSError as error:
            raise failures.explain(error) from error

    def _run(self) -> Result:
        start = self.start
        assert start is not None  # or it was refused
        self.place.store.prepare()
        snapshot = unpacked.plain_snapshot(self.place, start)
        offered = self.place.directory / "offered"
        prepare = self._prepare_dnf if self.request.base.dnf else self._prepare_apt
        install = prepare(start, snapshot, offered)
        agent = self.plan.agent
        if agent is not None:
            agent_install.offer(agent, self.place.store, offered / _AGENT)
        return self._build(offered, install)

    def _prepare_apt(self, start: BaseImage, snapshot: Path, offered: Path) -> Install:
        """Fetch what is to be installed, unless a finished base is in the cache."""
        plan, place, console, store = self.plan, self.place, self.console, self.place.store
        archive = functools.partial(work.open_archive, plan, place.directory / "apt", console)
        wish = work.wish(plan)
        found = customise.resolve(place, start, snapshot, archive, wish, plan.check_size)
        kept = store.checked_base(found.key)
        made = Made(found.key, cached=kept is not None, facts={"image": start.obtained.facts})
        if kept is not None:
            # Only a build in a namespace keeps one: to get it out of an appliance would cost every build minutes.
            place.base_tar.unlink(missing_ok=True)
            with console.step("unpack the cached base"):
                place.decompress(kept)
            offered.mkdir()
            return lambda _: made
        with fetching(found.archive, found.debs, store, console):
            unpacked.plain(place, snapshot)
            apt.offer(found.archive, found.debs, offered, console)

        def install(build: ApplianceBuild) -> Made:
            with console.step("install packages"), build.guest.mounted(), build.offered(apt.OFFERED):
                customise.install(build.guest, wish, found)
            return made

        return install

    def _prepare_dnf(self, start: BaseImage, snapshot: Path, offered: Path) -> Install:
        """Look at the image; its own dnf resolves and fetches, so that only the appliance can tell what is missing."""
        plan, place, console = self.plan, self.place, self.console
        unpacked.check_snapshot(place, snapshot, self.request.base, self.request.release)
        unpacked.plain(place, snapshot)
        offered.mkdir()
        wish = work.wish(plan)

        def install(build: ApplianceBuild) -> Made:
            guest = build.guest
            network = Network(contextlib.nullcontext, appliance_network.address, build.without_network)
            with guest.mounted():
                inherited.before_packages(guest)
                with build.scratch(dnf.DIRECTORY):
                    key = customise_dnf.resolve(guest, start, wish, network, console)
                    customise_dnf.install(guest, wish, network, place.store, console)
                customise_dnf.finish(guest, plan.check_size)
            return Made(key, cached=False, facts={"image": start.obtained.facts})

        return install

    def _build(self, offered: Path, install: Install) -> Result:
        """Make the disk in the appliance, and the files from it.

        :param offered: directory that the guest may see
        :param install: makes the finished base of what was unpacked
        """
        console, request = self.console, self.request
        disks = [kind for kind in self.targets if kind != "tar"]
        filesystem_uuid = str(uuid.uuid4())
        directory = self.place.directory / "appliance"
        directory.mkdir()
        with ApplianceBuild(
            directory,
            self.place.base_tar,
            size_gib=request.size_gib if disks else max(request.size_gib, _TAR_GIB),
            arch=request.arch,
            filesystem_uuid=filesystem_uuid,
            accelerator=accelerator.choose(console),
            console=console,
            offer=offered,
            tar="tar" in self.targets,
            network=request.base.dnf,
        ) as build:
            base = work.base_facts(self.plan, install(build))
            installed, configurations = self._configure(build)
            if request.base.dnf:
                with console.step("set SELinux labels"):
                    build.label()
            if "tar" in self.targets:
                with console.step("write tar"):
                    build.write_tar(self.targets["tar"])
            if disks:
                with console.step("configure the bootloader"):
                    build.install_bootloader(REDHAT if request.base.dnf else DEBIAN, request.base.esp_folder)
                    if request.base.dnf:
                        build.label("/boot")
            checked = in_build.check(build.guest, request, console)
            with console.step("end the appliance"):
                disk = build.finish()
        for kind in disks:
            with console.step(f"write {kind}"):
                formats.convert(disk, kind, self.targets[kind], console)
        warnings = tuple(console.warnings)
        return Result(base, installed, filesystem_uuid, checked, console.timings, warnings, configurations)

    def _configure(self, build: ApplianceBuild) -> tuple[list[dict[str, str]], dict[str, object] | None]:
        """Make an amphora of the finished base; its packages, and what its HAProxy says of its configurations."""
        agent, guest, console = self.plan.agent, build.guest, self.console
        if agent is not None:
            with console.step("install the amphora agent"), guest.mounted(), build.offered(apt.OFFERED):
                agent_install.make(agent, guest, f"{apt.OFFERED}/{_AGENT}")
        elif self.request.agent_packages:
            with guest.mounted():
                agent_package.check(guest, console)
        with console.step("configure"), guest.mounted():
            installed = work.run_stages(self.plan, guest, console)
        with guest.mounted():
            return installed, agent_configurations.check(self.request, guest, console)
