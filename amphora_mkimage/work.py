"""What the build of an image has in common in either guest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import manifest, stages
from amphora_mkimage.bases import mirror
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.bases.base import Made, Wish
from amphora_mkimage.bases.image import BaseImage
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.plain_paths import is_plain
from amphora_mkimage.plan import Plan
from amphora_mkimage.workplace import Workplace


@dataclass(frozen=True)
class Result:
    """What a build reports.

    :param base: where the base came from
    :param packages: installed ones
    :param checked: how many checks of the finished tree ended how
    :param timings: seconds by step
    :param warnings: what was warned of, among it what was before
    :param configurations: what the image's HAProxy says of its agent's configurations, for the manifest
    """

    base: dict[str, object]
    packages: list[dict[str, str]]
    filesystem_uuid: str
    checked: dict[str, int]
    timings: dict[str, float]
    warnings: tuple[str, ...]
    configurations: dict[str, object] | None


class Worker:
    """A build in either guest.

    :param targets: descriptors to write the images to, by type
    :param start: what a published base starts from
    """

    def __init__(self, plan: Plan, place: Workplace, targets: dict[str, int], start: BaseImage | None) -> None:
        self.plan = plan
        self.request = plan.request
        self.console = place.console
        self.place = place
        self.targets = targets
        self.start = start


def open_archive(
    plan: Plan, directory: Path, console: Console, status: Path | None = None, own_keyring: Path | None = None
) -> Archive:
    """Open the archive.

    :param status: package database of the system that packages are resolved for
    :param own_keyring: that system's own keyring, for a host that has none
    :raises HostError: there is no keyring
    """
    request, keyring = plan.request, Path(plan.request.keyring)
    if own_keyring is not None and own_keyring.exists() and not keyring.exists():
        keyring = own_keyring
    if not keyring.exists():
        raise HostError(
            f"the keyring {keyring} is not there, so the archive's signature cannot be checked",
            f"install the package {request.base.keyring_package}, or name a keyring with DIB_APT_KEYRING",
        )
    network = mirror.apt_network_settings(os.environ)
    sources = plan.archive.sources(request.base, request.release, str(keyring))
    return Archive(
        *(directory, request.arch, sources, network, plan.archive.logins, console, status),
        keyring=None if is_plain(keyring) else keyring,
        dated=request.dated_mirror,
        unread=plan.archive.unread,
    )


def base_facts(plan: Plan, made: Made) -> dict[str, object]:
    """Say for the manifest where a base came from."""
    request = plan.request
    return {
        "origin": plan.archive.origin,
        "mirror": plan.archive.main,
        "suites": [source.suite for source in plan.archive.suites(request.base, request.release)],
        "expired_accepted": request.dated_mirror,
        "key": made.key,
        "cached": made.cached,
        **made.facts,
    }


def wish(plan: Plan) -> Wish:
    """Say what is made of the base image."""
    request = plan.request
    return Wish(
        base=request.base,
        release=request.release,
        wanted=plan.wanted,
        unwanted=plan.unwanted,
        kernel=request.kernel_package,
        mirror=request.mirror,
        fips=request.fips,
    )


def run_stages(plan: Plan, guest: Guest, console: Console) -> list[dict[str, str]]:
    """Run the stages in a guest that is mounted; gives the packages that are installed, which no stage changes."""
    installed = manifest.packages(guest, dnf=plan.request.base.dnf)
    for stage in stages.wanted(plan.request):
        console.activity(stages.name(stage))
        for line in stage.run(guest, plan.request) or ():
            console.note(line)
    return installed
