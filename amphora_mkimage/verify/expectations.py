"""What the image is expected to be: from the manifest beside it, from options, else what every amphora is.

An image that another tool built has no manifest; whatever the manifest would say is then unknown (None), and the checks
ask only for what holds for every amphora.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from amphora_mkimage.errors import BadValueError

_MANIFEST_LIMIT = 64 << 20
GIB = 1 << 30
_T = TypeVar("_T")


@dataclass(frozen=True)
class Configurations:
    """What the build's HAProxy said of the configurations of the agent's release.

    :param refused: names of features
    """

    tried: int
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Expectations:
    """What to hold the image against; None where nothing is known.

    :param virtual_size: bytes
    :param root_password: "locked", "set" or "any"
    :param own_image: it was made from an image of the user's own
    :param octavia: version of the oldest controller that it must serve, "" where it is not known
    :param configurations: what the build's HAProxy said of the agent's configurations
    :param agent: False when the image was built without the amphora agent
    :param packages: name to version of all that was installed
    :param problem: why the manifest could not be used, or ""
    """

    manifest: Path | None = None
    problem: str = ""
    format: str | None = None
    virtual_size: int | None = None
    sha256: str | None = None
    filesystem_uuid: str | None = None
    base_os: str | None = None
    release: str | None = None
    arch: str | None = None
    kernel_package: str | None = None
    ssh: bool | None = None
    root_password: str = "locked"  # noqa: S105 (no password)
    cpu_pinning: bool | None = None
    enforce_mac: bool | None = None
    nftables: bool | None = None
    datasources: tuple[str, ...] = ("ConfigDrive",)
    own_image: bool = False
    octavia: str = ""
    configurations: Configurations | None = None
    agent: bool = True
    packages: dict[str, str] | None = field(default=None, repr=False)


def manifest_of(image: Path) -> Path:
    """Give the place of the manifest that belongs to an image."""
    return image.with_name(f"{image.name}.manifest.json")


def load(
    image: Path, manifest: Path | None = None, size_gib: int | None = None, root_password: str | None = None
) -> Expectations:
    """Read the manifest, and let options overrule it.

    :param manifest: of another name; it must then exist
    :param size_gib: what ``--size`` says
    :param root_password: what ``--root-password`` says
    :raises BadValueError: the manifest that was named cannot be read
    """
    document: dict[str, Any] = {}
    path, problem = manifest or manifest_of(image), ""
    found = path.is_file()
    if found:
        document, problem = _read(path)
    if manifest and (problem or not found):
        raise BadValueError(f"--manifest: {path} {problem or 'does not exist'}")
    return _expect(document, path if found else None, problem, size_gib, root_password)


def of_settings(settings: dict[str, Any], *, agent: bool) -> Expectations:
    """Expect what a build was asked for, before there is a manifest.

    :param settings: as the manifest will have them
    :param agent: the amphora agent is in the image
    """
    return _expect({"settings": settings, "agent": agent}, None, "", None, None)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MANIFEST_LIMIT))
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return {}, "is no JSON"
    return (document, "") if isinstance(document, dict) else ({}, "is no manifest")


def _expect(
    document: dict[str, Any], manifest: Path | None, problem: str, size_gib: int | None, root_password: str | None
) -> Expectations:
    settings, image = _dict(document, "settings"), _dict(document, "image")
    size = size_gib if size_gib is not None else _value(settings, "size_gib", int)
    password = root_password or _value(settings, "root_password", str)
    sources = settings.get("datasources")
    return Expectations(
        manifest=manifest,
        problem=problem,
        format=_value(image, "format", str),
        virtual_size=size * GIB if size else _value(image, "virtual_size", int),
        sha256=_value(image, "sha256", str),
        filesystem_uuid=_value(image, "filesystem_uuid", str),
        base_os=_value(settings, "base_os", str),
        release=_value(settings, "release", str),
        arch=_value(settings, "arch", str),
        kernel_package=_value(settings, "kernel_package", str),
        ssh=_value(settings, "ssh", bool),
        root_password=password if password in ("set", "any") else "locked",
        cpu_pinning=_value(settings, "cpu_pinning", bool),
        # Where AppArmor is, it always enforces; the word is about SELinux.
        enforce_mac=_enforces(settings),
        nftables=_value(settings, "nftables", bool),
        datasources=tuple(str(s) for s in sources) if isinstance(sources, list) and sources else ("ConfigDrive",),
        own_image=bool(settings.get("own_image")),
        octavia=_octavia(document, settings),
        configurations=_configurations(_dict(_dict(document, "agent"), "configurations")),
        agent=bool(document.get("agent", True)),
        packages=_packages(document.get("packages")),
    )


def _dict(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _value(table: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = table.get(key)
    return value if isinstance(value, kind) else None


def _enforces(settings: dict[str, Any]) -> bool | None:
    mode = _value(settings, "mandatory_access_control", str)
    return None if mode is None else mode == "enforcing"


def _octavia(document: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return the release of the controllers, else that of the agent."""
    said = _value(settings, "octavia", str) or ""
    return said if said[:1].isdigit() else _value(_dict(document, "agent"), "octavia", str) or ""


def _configurations(record: dict[str, Any]) -> Configurations | None:
    answers = _dict(record, "features")
    refused = tuple(str(name) for name, answer in answers.items() if answer != "ok")
    return Configurations(len(answers), refused) if answers else None


def _packages(entries: object) -> dict[str, str] | None:
    if not isinstance(entries, list):
        return None
    named = [e for e in entries if isinstance(e, dict) and "name" in e]
    return {str(e["name"]): str(e.get("version", "")) for e in named} or None
