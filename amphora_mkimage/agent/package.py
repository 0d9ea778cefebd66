"""The agent of the distribution's package: it came with the base, in the distribution's own Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from amphora_mkimage import packages
from amphora_mkimage.agent import install
from amphora_mkimage.console import Console
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request

_PYTHON = "/usr/bin/python3"


def check(guest: Guest, console: Console) -> None:
    """Import the agent.

    :param guest: mounted
    :raises MkimageError: that fails
    """
    with console.step("import the amphora agent"):
        install.import_commands(guest, _PYTHON)


def facts(request: Request, installed: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """Say for the manifest which agent it is.

    :param installed: packages of the image, as the manifest has them
    """
    (name,) = packages.groups(request)["agent"]
    version = next((package["version"] for package in installed if package["name"] == name), "")
    # Without epoch and revision (deb-policy 5.6.12; the same in RPM).
    upstream = re.sub(r"^\d+:|-[^-]*$", "", version)
    return {"source": "package", "package": name, "version": version, "octavia": upstream, "path": "/usr"}
