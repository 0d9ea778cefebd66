"""The customisations, one module each, in the order of :data:`ORDER`.

A stage is a module with a docstring that says what and why, ``applies(request)`` and ``run(guest, request)``. The files
that it installs lie beside it under ``files/``, at the path that they get in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages import (
    agent,
    agent_package,
    apparmor,
    apt,
    boot,
    clean,
    cloud_init,
    cpu_pinning,
    fips,
    grub2,
    haproxy,
    identity,
    inherited,
    interface_names,
    kernel_arguments,
    logging,
    name_resolution,
    network,
    network_manager,
    redhat,
    root_password,
    selinux,
    services,
    ssh,
    sysctl,
)


class Stage(Protocol):
    """One customisation."""

    __name__: str
    __doc__: str | None

    def applies(self, request: Request) -> bool:
        """Tell whether this image wants it."""

    def run(self, guest: Guest, request: Request) -> Sequence[str] | None:
        """Do it; what the user should know of it, one line each."""


ORDER: Sequence[Stage] = cast(
    "Sequence[Stage]",
    (
        inherited,  # first: the others write where it takes something away
        apt,
        identity,
        network,
        interface_names,
        network_manager,
        name_resolution,
        sysctl,
        haproxy,
        agent,
        agent_package,
        apparmor,
        selinux,
        logging,
        ssh,
        cloud_init,
        boot,
        grub2,
        cpu_pinning,
        fips,
        kernel_arguments,
        services,
        redhat,
        root_password,
        clean,  # last: it removes what the others and the packages left behind
    ),
)


def name(stage: Stage) -> str:
    """Give the short name of a stage."""
    return stage.__name__.rpartition(".")[2]


def title(stage: Stage) -> str:
    """Give the first line of a stage's docstring."""
    return (stage.__doc__ or "").strip().splitlines()[0].rstrip(".")


def wanted(request: Request) -> list[Stage]:
    """Give the stages that a request needs, in order."""
    return [stage for stage in ORDER if stage.applies(request)]
