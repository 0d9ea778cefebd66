"""What the user asked for: checked before any work, then frozen.

A Request holds everything that a build depends on. The root password is in it as its hash only, and no representation
of it shows even that.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from amphora_mkimage import controllers, kernel_arguments, passwords, remarks, settings, suggest
from amphora_mkimage.agent import branch, lock, rule
from amphora_mkimage.architecture import ALIASES
from amphora_mkimage.bases import BASES, Base, suites
from amphora_mkimage.bases.suites import Layout
from amphora_mkimage.bases.version_numbers import name_of
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.proxies import Proxies
from amphora_mkimage.setting import Value

_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # deb-policy 5.6.7
_DATASOURCE = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True)
class Request:
    """A checked wish for one image.

    :param arch: dpkg's name of the architecture
    :param output: path of the image without a suffix, absolute
    :param types: image types, in the order given
    :param root_password_hash: crypt(5) hash, or "" to keep the root account locked
    :param mirror: URL of the archive, "" to choose one
    :param layout: where that has its suites, and which are taken
    :param dated_mirror: it is of a date on purpose, and its indexes may have expired
    :param keyring: of the archive
    :param image_mirror: directory that has the base image, "" for the distribution's
    :param image_keyring: that signs there, None for the distribution's key
    :param local_image: base image of the user's own, path or URL; "" for a published one
    :param agent: the amphora agent is in the image
    :param agent_packages: it is the distribution's
    :param branch: it is that of a branch
    :param octavia: version of the oldest controller that the image must serve, "" where it is not known
    :param octavia_said: the user named it
    :param kernel_args: arguments that the kernel gets besides
    :param default_cmdline: arguments in place of diskimage-builder's defaults, None to keep these
    :param insecure: the base image may lack a signature or a checksum
    :param guest: "auto", "namespace" or "appliance"
    """

    base: Base
    release: str
    arch: str
    size_gib: int
    types: tuple[str, ...]
    output: Path
    cache_dir: Path
    working_dir: Path
    kernel_package: str
    ssh: bool = True
    nftables: bool = True
    agent: bool = True
    agent_packages: bool = False
    branch: branch.Branch | None = field(default=None, repr=False)
    octavia: str = ""
    octavia_said: bool = False
    cpu_pinning: bool = False
    kernel_args: tuple[str, ...] = ()
    default_cmdline: tuple[str, ...] | None = None
    enforce_mac: bool = False
    fips: bool = False
    use_tmpfs: bool = True
    overwrite: bool = False
    datasources: tuple[str, ...] = ("ConfigDrive",)
    mirror: str = field(default="", repr=False)
    layout: Layout = field(default=Layout(), repr=False)
    dated_mirror: bool = False
    keyring: str = ""
    image_mirror: str = field(default="", repr=False)
    image_keyring: Path | None = None
    local_image: str = field(default="", repr=False)
    insecure: bool = False
    guest: str = "auto"
    log_file: Path | None = None
    root_password_hash: str = field(default="", repr=False)

    @property
    def outputs(self) -> dict[str, Path]:
        """Path of each image, by type."""
        return {kind: self.output.with_name(f"{self.output.name}.{kind}") for kind in self.types}

    @property
    def summary(self) -> dict[str, object]:
        """The settings without secrets, as the manifest and the plan show them."""
        return {
            "base_os": self.base.name,
            "release": self.release,
            "arch": self.arch,
            "backend": "haproxy",
            "size_gib": self.size_gib,
            "types": list(self.types),
            "kernel_package": self.kernel_package,
            "ssh": self.ssh,
            "nftables": self.nftables,
            "agent": self.agent_source if self.branch is None else f"branch {self.branch.agent.ref}",
            "octavia": self.octavia or "unknown",
            "cpu_pinning": self.cpu_pinning,
            "kernel_args": list(self.kernel_args),
            "default_cmdline": [*(kernel_arguments.DEFAULTS if self.default_cmdline is None else self.default_cmdline)],
            "mandatory_access_control": "enforcing" if self.enforce_mac or not self.base.dnf else "permissive",
            "fips": self.fips,
            "datasources": list(self.datasources),
            "insecure": self.insecure,
            "own_image": bool(self.local_image),
            "dated_mirror": self.dated_mirror,
            "root_password": "set" if self.root_password_hash else "locked",
        }

    @property
    def agent_source(self) -> str:
        """Where the agent comes from: "released", "branch", "package" (the distribution's), or "none"."""
        if self.branch is not None:
            return "branch"
        return "none" if not self.agent else "package" if self.agent_packages else "released"


def make(values: Mapping[str, Value], environ: Mapping[str, str], warn: Callable[[str], None]) -> Request:
    """Check the settings together and freeze them.

    :param values: from :func:`amphora_mkimage.settings.resolve`
    :param environ: the environment, for what is recognised there but unused
    :param warn: takes each remark about a setting that does not do what one might expect
    :raises BadValueError: something cannot be used; nothing was done yet
    """
    _refuse_later(values)
    base = _base(values["base_os"])
    arch = _arch(values["arch"], base)
    chosen = branch.choose(values, warn)
    none, packaged = bool(values["no_agent"].value), bool(values["agent_packages"].value)
    agent = rule.Choice.of(chosen, packages=packaged, none=none)
    suites_of_agent = rule.usable(agent, base, arch)
    octavia = _octavia(values)
    default = controllers.best_suite(octavia, base.distribution, suites_of_agent, base.default_for(arch))
    release = _release(values["release"], base, arch, agent, default)
    remarks.remark(values, environ, base, warn)
    Proxies.read(environ, warn)  # what cannot be used is refused before any work
    remarks.of_controllers(values, base, release, suites_of_agent, octavia, warn)
    return Request(
        base=base,
        release=release,
        arch=arch,
        size_gib=_size(values["size"], base),
        types=_types(values["types"]),
        output=_output(values["output"]),
        cache_dir=_directory(values["cache_dir"], "-c"),
        working_dir=_directory(values["working_dir"], "-w"),
        kernel_package=_kernel(values["kernel_package"], base, arch),
        ssh=not values["no_ssh"].value,
        nftables=bool(values["nftables"].value),
        agent=not none,
        agent_packages=packaged,
        branch=chosen,
        octavia=octavia,
        octavia_said=values["octavia"].said,
        cpu_pinning=bool(values["cpu_pinning"].value),
        kernel_args=_kernel_args(values["kernel_args"]),
        default_cmdline=_default_cmdline(values["default_cmdline"]),
        enforce_mac=bool(values["mandatory_access_control"].value),
        fips=bool(values["fips"].value),
        use_tmpfs=not values["no_tmpfs"].value,
        overwrite=bool(values["overwrite"].value),
        datasources=_datasources(values["datasources"]),
        mirror=_mirror(values["mirror"], base),
        layout=suites.read(values, base, release, warn),
        dated_mirror=bool(values["dated_mirror"].value),
        keyring=_keyring(values["keyring"]) or base.keyring,
        image_mirror=_location(values["image_mirror"]),
        image_keyring=Path(keyring) if (keyring := _keyring(values["image_keyring"])) else None,
        local_image=_local_image(values["local_image"]),
        insecure=bool(values["insecure"].value),
        guest=str(values["guest"].value),
        log_file=_log_file(values["log_file"]),
        root_password_hash=_root_password(values, warn),
    )


def _refuse_later(values: Mapping[str, Value]) -> None:
    for setting in settings.SETTINGS:
        value = values[setting.name]
        if setting.later and value.said and value.value:
            raise BadValueError(f"{value.origin}: {setting.later}")


def _base(value: Value) -> Base:
    name = str(value.value)
    if name in BASES:
        return BASES[name]
    raise BadValueError(f"-i {name} is not there yet", f"available today: -i {', -i '.join(BASES)}")


def _octavia(values: Mapping[str, Value]) -> str:
    """Return the version of the oldest controller: what was said, else the agent's, as far as it is known now."""
    value, ref = values["octavia"], values["agent_ref"].value
    if value.value:
        return controllers.table().find(str(value.value), value.origin)
    if branch.wanted(values):
        return controllers.table().of_branch(str(ref or ""))
    if values["agent_packages"].value or values["no_agent"].value:
        return ""
    return next(package.version for package in lock.read() if package.name == "octavia")


def _release(value: Value, base: Base, arch: str, agent: rule.Choice, default: str) -> str:
    codename = name_of(base.distribution, str(value.value or default))
    known = base.releases.get(codename)
    accepted = rule.remedy(agent, base, codename, arch)
    if value.origin == "DIB_RELEASE":
        accepted += "; or unset DIB_RELEASE, which Octavia's script does not read, but sets by -d"
    if known is None:
        near = suggest.did_you_mean(codename, base.usable(arch))
        raise BadValueError(f"{value.origin}: unknown release {codename!r} of {base.name}", f"{near}{accepted}")
    if known.refused:
        raise BadValueError(f"{value.origin}: {base.name} {codename} cannot be used: {known.refused}", accepted)
    if arch in known.lacks:
        what = f"{base.name} {codename} cannot be built for {arch}: {known.lacks[arch]}"
        raise BadValueError(f"{value.origin}: {what}", accepted)
    reason = rule.refusal(agent, base, known)
    if reason:
        origin = value.origin if value.said else agent.origin
        raise BadValueError(f"{origin}: {base.name} {codename} cannot be used: {reason}", accepted)
    return codename


def _arch(value: Value, base: Base) -> str:
    """Give dpkg's name of the architecture."""
    arch = ALIASES.get(str(value.value), str(value.value))
    if arch not in base.bootloader:
        raise BadValueError(
            f"{value.origin}: {base.distribution} has no bootable system for {value.value}",
            f"accepted: {', '.join(n for n in settings.ARCHITECTURES if ALIASES.get(n, n) in base.bootloader)}",
        )
    return arch


def _size(value: Value, base: Base) -> int:
    text = str(value.value)
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
        raise BadValueError(f"{value.origin}: {text!r} is not a size", "give a whole number of GiB, at least 1")
    if int(text) < base.minimum_gib:
        raise BadValueError(f"{value.origin}: {base.name} needs at least {base.minimum_gib} GiB")
    return int(text)


def _types(value: Value) -> tuple[str, ...]:
    types = tuple(dict.fromkeys(part.strip() for part in str(value.value).split(",")))
    for kind in types:
        if kind not in settings.IMAGE_TYPES:
            accepted = suggest.accepted(kind, settings.IMAGE_TYPES, "accepted, also several")
            raise BadValueError(f"{value.origin}: unsupported image type {kind!r}", accepted)
    return types


def _output(value: Value) -> Path:
    text = str(value.value)
    if Path(text).name in ("", "..") or text.endswith("/"):
        raise BadValueError(f"{value.origin}: {text!r} does not name a file")
    path = _path(value)
    # Whatever was passed, the suffixes of the types go, so that each image gets exactly one, the right one.
    while path.suffix[1:] in settings.IMAGE_TYPES and path.stem:
        path = path.with_suffix("")
    return _writable(value, path.parent.resolve(), "-o") / path.name


def _directory(value: Value, flag: str) -> Path:
    return _writable(value, _path(value), flag)


def _writable(value: Value, path: Path, flag: str) -> Path:
    """Check that a directory is writable, or can be made; it is made when the build starts.

    :param flag: the option that names another
    """
    existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
    remedy = f"name another with {flag}"
    if not os.path.isdir(existing):  # noqa: PTH112 (Path.is_dir raises below a directory that may not be searched)
        raise BadValueError(f"{value.origin}: {existing} is not a directory", remedy)
    try:
        _try_to_write(path)
    except OSError as error:
        doing = "write to" if existing == path else "make"
        raise BadValueError(f"{value.origin}: cannot {doing} {path}: {error.strerror}", remedy) from error
    return path


def _try_to_write(directory: Path) -> None:
    """Make a file in a directory, and the directory where it is missing; nothing of it stays.

    Permissions do not tell: to root, all seem to allow it, also /proc and what is mounted read-only.
    """
    missing = [place for place in (directory, *directory.parents) if not os.path.exists(place)]  # noqa: PTH110
    made: list[Path] = []
    try:
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.append(place)
        with tempfile.TemporaryFile(dir=directory):
            pass
    finally:
        for place in reversed(made):
            with contextlib.suppress(OSError):  # another program has put something there
                place.rmdir()


def _path(value: Value) -> Path:
    """Return an absolute path; spaces and all that is not a control character may be in it."""
    text = str(value.value)
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise BadValueError(f"{value.origin}: {text!r} has a control character in it", "name another file or directory")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        what = f"{value.origin}: there is no home directory for {text.partition('/')[0]}"
        raise BadValueError(what, "name a directory by its whole path, or set HOME") from error
    except FileNotFoundError as error:
        raise BadValueError(f"{value.origin}: the current directory is gone", "change to one that exists") from error


def _kernel(value: Value, base: Base, arch: str) -> str:
    if not value.value or (value.origin == remarks.UBUNTU_KERNEL and base.distribution != "ubuntu"):
        return base.kernels[arch]
    name = str(value.value)
    if not _PACKAGE_NAME.fullmatch(name):
        raise BadValueError(f"{value.origin}: {name!r} is no package name")
    return name


def _kernel_args(value: Value) -> tuple[str, ...]:
    words = cast("list[str]", value.value or [])
    return kernel_arguments.check(words, value.origin)


def _default_cmdline(value: Value) -> tuple[str, ...] | None:
    return kernel_arguments.check(str(value.value).split(), value.origin) if value.said else None


def _datasources(value: Value) -> tuple[str, ...]:
    names = tuple(part.strip() for part in str(value.value).split(",") if part.strip())
    if not names or not all(_DATASOURCE.fullmatch(name) for name in names):
        raise BadValueError(
            f"{value.origin}: {value.value!r} is no list of data sources", "for example: ConfigDrive, OpenStack"
        )
    return names


def _mirror(value: Value, base: Base) -> str:
    url = suites.check_url(value)
    if base.dnf and url.startswith(("file:", "copy:")):
        what = f"{value.origin}: dnf runs in the image, which does not see this host's directories"
        raise BadValueError(what, "serve the mirror over http")
    return url


def _location(value: Value) -> str:
    """Check a URL or path; it may carry a password and is not repeated."""
    text = str(value.value or "")
    if text:
        try:
            Location.parse(text)
        except BadValueError as error:
            raise BadValueError(f"{value.origin}: {error.what}", error.remedy) from error
    return text


def _local_image(value: Value) -> str:
    text = _location(value)
    path = Location.parse(text.partition("#")[0]).path if text else None
    if path is not None and not os.access(path, os.R_OK):
        raise BadValueError(f"{value.origin}: {path} cannot be read", "name an image file, or its URL")
    return text


def _keyring(value: Value) -> str:
    if not value.value:
        return ""
    path = _path(value)
    if not os.path.isfile(path):  # noqa: PTH113 (as above)
        raise BadValueError(f"{value.origin}: {path} is not a keyring file")
    return str(path.resolve())


def _log_file(value: Value) -> Path | None:
    if not value.value:
        return None
    path = _path(value)
    place = path if os.path.exists(path) else path.parent  # noqa: PTH110 (as above)
    if os.path.isdir(path) or not os.path.isdir(path.parent) or not os.access(place, os.W_OK):  # noqa: PTH112 (as above)
        raise BadValueError(f"{value.origin}: cannot write {path}")
    return path


def _root_password(values: Mapping[str, Value], warn: Callable[[str], None]) -> str:
    ways = [
        name for name in ("root_password", "root_password_file", "root_password_hash") if values[name].value is not None
    ]
    if len(ways) > 1:
        origins = " and ".join(values[name].origin for name in ways)
        raise BadValueError(f"{origins} both give a root password", "keep one")
    if not ways:
        return ""
    value = values[ways[0]]
    if ways[0] == "root_password_hash":
        return passwords.check_hash(str(value.value))
    if ways[0] == "root_password_file":
        return passwords.hash_password(passwords.read_password(str(value.value)))
    if value.origin == "-r":
        warn("-r shows the password to every user of this host while it runs; prefer --root-password-file")
    return passwords.hash_password(str(value.value))
