"""What a user should know about settings that do not do what one might expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from amphora_mkimage import controllers, foreign_variables, settings
from amphora_mkimage.architecture import ALIASES
from amphora_mkimage.bases import BASES, Base
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.setting import Value

#: Octavia's script sets it for Ubuntu only.
UBUNTU_KERNEL = "DIB_UBUNTU_KERNEL"
#: Settings that matter where the base starts from a published image.
_OF_PUBLISHED = ("image_mirror", "image_keyring", "local_image", "insecure")
_OF_DEBIAN = ("security_mirror", "security_subpath")
#: Settings of archives that apt reads.
_OF_APT = (*_OF_DEBIAN, "apt_sources", "dated_mirror")


def remark(values: Mapping[str, Value], environ: Mapping[str, str], base: Base, warn: Callable[[str], None]) -> None:
    """Say of everything that was given but changes nothing that it does so; refuse what must not be missed silently.

    :param warn: takes each remark
    :raises BadValueError: the base has not what was asked for
    """
    _refuse(values, base)
    if values["agent_packages"].value:
        foreign_variables.refuse(environ, values["agent_packages"].origin)
    for text in (*_unused(values, base), *foreign_variables.remarks(environ, _known())):
        warn(text)
    mirrors = [environ.get(variable.name, "") for variable in settings.BY_NAME["mirror"].variables]
    if all(mirrors) and len(set(mirrors)) > 1:
        warn("BASE_OS_MIRROR and DIB_DISTRIBUTION_MIRROR differ: BASE_OS_MIRROR is used")


def _unused(values: Mapping[str, Value], base: Base) -> Iterator[str]:
    """Say of what was given and has no effect on this base that it is unused."""
    if values["mandatory_access_control"].value and not base.dnf:
        origin = values["mandatory_access_control"].origin
        yield f"{origin} is unused: {base.distribution} has AppArmor, which enforces by default"
    if values["keyring"].said and base.dnf:
        yield f"{values['keyring'].origin} is unused: dnf checks packages with the keys of the base image"
    if values["kernel_package"].origin == UBUNTU_KERNEL and base.distribution != "ubuntu":
        yield f"{UBUNTU_KERNEL} is unused: it is about Ubuntu; use -k"
    for setting in settings.SETTINGS:
        if setting.unused and values[setting.name].value:
            yield f"{values[setting.name].origin} is unused: it has no meaning without diskimage-builder"
    for name in () if base.published else _OF_PUBLISHED:
        if values[name].said:
            yield f"{values[name].origin} is unused: {base.name} is bootstrapped from its archive"
    for name in _OF_APT if base.dnf else () if base.distribution == "debian" else _OF_DEBIAN:
        if values[name].said:
            yield f"{values[name].origin} is unused: it has no meaning for {base.distribution}"


def of_controllers(
    values: Mapping[str, Value],
    base: Base,
    release: str,
    suites: Sequence[str],
    octavia: str,
    warn: Callable[[str], None],
) -> None:
    """Say what the image's HAProxy refuses of its controllers, and which release was taken for them.

    :param suites: releases that the agent runs on, oldest first
    :param octavia: version of the oldest controller, "" where it is not known
    """
    arch = ALIASES.get(str(values["arch"].value), str(values["arch"].value))
    newest = base.default_for(arch)
    best = controllers.best_suite(octavia, base.distribution, suites, newest)
    if not values["release"].value and best != newest:
        warn(f"-d {best} is taken: {controllers.remark(octavia, base.distribution, newest, said=True)}")
    text = controllers.remark(octavia, base.distribution, release, said=values["octavia"].said)
    if text:
        better = f" (-d {best} takes more of it)" if best != release else ""
        warn(f"{text}{better}; see docs/controllers.md")


def _refuse(values: Mapping[str, Value], base: Base) -> None:
    if values["fips"].value and not base.fips:
        able = ", ".join(name for name, other in BASES.items() if other.fips)
        what = f"{values['fips'].origin}: {base.distribution} has no FIPS mode without a subscription"
        raise BadValueError(what, f"bases that have one: {able}")
    if base.name == "rhel" and not values["local_image"].value:
        raise BadValueError(
            f"{values['base_os'].origin} rhel: no image of it is published without a subscription",
            "name your own with DIB_LOCAL_IMAGE",
        )
    if values["mirror"].value and base.name == "rhel":
        raise BadValueError(
            f"{values['mirror'].origin}: RHEL has no mirrors", "dnf uses the repositories of your image"
        )


def _known() -> set[str]:
    return {variable.name for setting in settings.SETTINGS for variable in setting.variables}
