"""A build where no namespace can be had: the host fetches and verifies, libguestfs' appliance installs.

The order of the steps is that of a build in a namespace. Nothing of the image is ever run, owned or mounted by this
host: the base image becomes a tar (:func:`amphora_mkimage.unpack.plain`), and the rest happens in the appliance.
"""

from __future__ import annotations

import functools
import os
import uuid
from pathlib import Path

from amphora_mkimage import accelerator, work
from amphora_mkimage.agent import install as agent_install
from amphora_mkimage.agent import package as agent_package
from amphora_mkimage.bases import apt, customise, unpacked
from amphora_mkimage.bases.archive import fetching
from amphora_mkimage.bases.base import Made, Wish
from amphora_mkimage.disk import formats
from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.appliance import ApplianceBuild
from amphora_mkimage.guest.choose import ASKED, Choice
from amphora_mkimage.request import Request
from amphora_mkimage.work import Result, Worker

#: GiB of the disk where only a tar is wanted, for which -s means nothing; where nothing is written it takes no space.
_TAR_GIB = 16
#: Directory of the agent's packages among what the guest is offered.
_AGENT = "agent"


def require(request: Request, choice: Choice) -> None:
    """Refuse what an appliance cannot build.

    :raises HostError: with what would allow it
    """
    why = other = ""
    if request.arch != "amd64" or os.uname().machine != "x86_64":
        why = f"an appliance on {os.uname().machine} cannot build for {request.arch}"
    elif request.base.dnf:
        why = f"-i {request.base.name} cannot be built in an appliance yet"
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
            raise userns.explain(error) from error

    def _run(self) -> Result:
        plan, place, console, store = self.plan, self.place, self.console, self.place.store
        start = self.start
        assert start is not None  # or it was refused
        store.prepare()
        snapshot = unpacked.plain_snapshot(place, start)
        archive = functools.partial(work.open_archive, plan, place.directory / "apt", console)
        wish = work.wish(plan)
        found = customise.resolve(place, start, snapshot, archive, wish, plan.check_size)
        kept = store.checked_base(found.key)
        made = Made(found.key, cached=kept is not None, facts={"image": start.obtained.facts})
        base = work.base_facts(plan, made)
        offered = place.directory / "offered"
        if kept is not None:
            # Only a build in a namespace keeps one: to get it out of an appliance would cost every build minutes.
            place.base_tar.unlink(missing_ok=True)
            with console.step("unpack the cached base"):
                place.decompress(kept)
            offered.mkdir()
            return self._build(base, offered, None, wish)
        with fetching(found.archive, found.debs, store, console):
            unpacked.plain(place, snapshot)
            apt.offer(found.archive, found.debs, offered, console)
        return self._build(base, offered, found, wish)

    def _build(
        self,
        base: dict[str, object],
        offered: Path,
        found: customise.Resolved | None,
        wish: Wish,
    ) -> Result:
        """Make the disk in the appliance, and the files from it.

        :param offered: directory with the packages to install
        :param found: those packages, None when the base has them
        """
        console = self.console
        disks = [kind for kind in self.targets if kind != "tar"]
        filesystem_uuid = str(uuid.uuid4())
        directory = self.place.directory / "appliance"
        directory.mkdir()
        agent = self.plan.agent
        if agent is not None:
            agent_install.offer(agent, self.place.store, offered / _AGENT)
        with ApplianceBuild(
            directory,
            self.place.base_tar,
            size_gib=self.request.size_gib if disks else max(self.request.size_gib, _TAR_GIB),
            arch=self.request.arch,
            filesystem_uuid=filesystem_uuid,
            accelerator=accelerator.choose(console),
            console=console,
            offer=offered,
            tar="tar" in self.targets,
        ) as build:
            guest = build.guest
            if found is not None:
                with console.step("install packages"), guest.mounted(), build.offered(apt.OFFERED):
                    customise.install(guest, wish, found)
            if agent is not None:
                with console.step("install the amphora agent"), guest.mounted(), build.offered(apt.OFFERED):
                    agent_install.make(agent, guest, f"{apt.OFFERED}/{_AGENT}")
            elif self.request.agent_packages:
                with guest.mounted():
                    agent_package.check(guest, console)
            with console.step("configure"), guest.mounted():
                installed = work.run_stages(self.plan, guest, console)
            if "tar" in self.targets:
                with console.step("write tar"):
                    build.write_tar(self.targets["tar"])
            if disks:
                with console.step("configure the bootloader"):
                    build.install_bootloader(self.request.base.esp_folder)
            with console.step("end the appliance"):
                disk = build.finish()
        for kind in disks:
            with console.step(f"write {kind}"):
                formats.convert(disk, kind, self.targets[kind], console)
        return Result(base, installed, filesystem_uuid, console.timings)
