"""Read ``package_lists/``: which packages a request wants, and why."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from amphora_mkimage.request import Request


def groups(request: Request) -> dict[str, list[str]]:
    """Give the wanted packages by role, in the order of the file; kernel and bootloader come from the base.

    :raises ValueError: the data file names an unknown condition (a defect of ours)
    """
    wanted = {
        role: list(group["packages"])
        for role, group in _roles(request.base.distribution).items()
        if "packages" in group and _applies(group.get("when", ""), request)
        if request.release not in group.get("not_in", ())
        if request.release in group.get("releases", (request.release,))
    }
    wanted["kernel"] = [request.kernel_package]
    wanted["bootloader"] = list(request.base.bootloader[request.arch])
    return wanted


def wanted(request: Request) -> list[str]:
    """Give all wanted packages, sorted."""
    return sorted({package for group in groups(request).values() for package in group})


def unwanted(request: Request) -> list[str]:
    """Name the packages that go where a published base image has them."""
    return [
        name
        for group in _roles(request.base.distribution).values()
        if _applies(group.get("when", ""), request)
        for name in group.get("remove", ())
    ]


def _roles(name: str) -> dict[str, dict[str, Any]]:
    """Read a list, on top of the one that it extends."""
    file = resources.files("amphora_mkimage.package_lists") / f"{name}.toml"
    roles = tomllib.loads(file.read_text(encoding="utf-8"))
    parent = roles.pop("extends", None)
    return roles if parent is None else _roles(parent) | roles


def _applies(condition: str, request: Request) -> bool:
    if not condition:
        return True
    word = condition.removeprefix("not ")
    if word not in ("ssh", "nftables", "cpu_pinning", "fips", "agent_packages"):
        raise ValueError(f"package_lists: unknown condition {condition!r}")
    return bool(getattr(request, word)) != condition.startswith("not ")
