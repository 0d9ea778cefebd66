"""The manifest beside each image: what is in it, how it was made, without secrets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from amphora_mkimage import __version__
from amphora_mkimage.bases import dpkg, rpm
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request


def packages(guest: Guest, *, dnf: bool) -> list[dict[str, str]]:
    """Read every installed package from the guest's package database.

    :param guest: mounted
    :param dnf: the database is RPM's
    """
    found: Sequence[dpkg.Installed | rpm.Installed]
    found = rpm.installed(guest) if dnf else dpkg.parse(guest.read_file(f"/{dpkg.STATUS}").decode())
    return [{"name": package.name, "version": package.version, "arch": package.arch} for package in found]


def render(
    request: Request,
    *,
    guest: str,
    image: dict[str, object],
    installed: list[dict[str, str]],
    base: dict[str, object],
    agent: dict[str, object] | None,
    checked: dict[str, int],
    timings: dict[str, float],
) -> bytes:
    """Give a manifest's JSON text.

    :param guest: what it was built in, "namespace" or "appliance"
    :param image: facts of this one file (format, bytes, sha256, virtual size)
    :param base: where the base came from
    :param agent: what it was installed from, None when it was left out
    :param checked: how many checks of the finished tree ended how
    :param timings: seconds by step
    """
    document = {
        "tool": {"name": "amphora-mkimage", "version": __version__},
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "image": image,
        "settings": request.summary,
        "guest": guest,
        "agent": agent,
        "base": base,
        "checked": checked,
        "packages": installed,
        "timings": timings,
    }
    return (json.dumps(document, indent=2) + "\n").encode()
