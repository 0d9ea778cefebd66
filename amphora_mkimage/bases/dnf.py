"""Install packages with the dnf of a guest: fetched and checked while there is a network, installed without one.

The verbs are the guest's, so this works in a namespace and in an appliance alike. dnf 4 (CentOS Stream, Rocky Linux,
RHEL) and dnf 5 (Fedora) both know the options and commands that are used here (dnf.conf(5), dnf5.conf(5)); what only
one of them knows, the other ignores in a configuration file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from amphora_mkimage import trouble
from amphora_mkimage.bases import dnf_repositories, rpm
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest.protocol import Guest

#: Where configuration and downloads are in the guest until :func:`finish`.
DIRECTORY = "/var/cache/amphora-dnf"

_CONFIGURATION = f"{DIRECTORY}/dnf.conf"
_REPOSITORIES = f"{DIRECTORY}/repos"
#: One directory a repository, with its packages below "packages".
CACHE = f"{DIRECTORY}/cache"
_CA_BUNDLE = f"{DIRECTORY}/ca.pem"
_NO_INITRAMFS = "/etc/kernel/install.conf.d/90-amphora.conf"
#: The first stays in the image, for what an operator installs there.
_MACROS = ("macros.amphora", "macros.amphora-build")
FILES = Path(__file__).with_name("files")

_MAIN = {
    "assumeyes": "1",
    # system_cachedir is dnf 5's word, cachedir dnf 4's.
    "cachedir": CACHE,
    "system_cachedir": CACHE,
    "keepcache": "1",
    "reposdir": _REPOSITORIES,
    # Never less than what the repositories' own files ask for, see dnf_repositories.
    "gpgcheck": "1",
    "localpkg_gpgcheck": "1",
    "sslverify": "1",
    # A repository that cannot be read is an error: it may be the one with the security updates.
    "skip_if_unavailable": "0",
    "install_weak_deps": "0",
    "tsflags": "nodocs",
    "clean_requirements_on_remove": "1",
    "best": "1",
    "retries": "3",
    "timeout": "60",
    "logdir": DIRECTORY,
    # This build was not asked whether it wants to be counted, and a system that is being made is none.
    "countme": "0",
}


def prepare(
    guest: Guest,
    distribution: str,
    mirror: str,
    environ: Mapping[str, str],
    address: Callable[[str], str] = str,
) -> None:
    """Write a configuration of our own beside the guest's, with the guest's repositories in it.

    :param distribution: os-release ID
    :param mirror: URL, with credentials if it has any, or "" for the repositories as the guest names them
    :param environ: that names proxies and the CA bundle
    :param address: gives URLs of this host as the guest has to write them
    :raises BadValueError: the mirror cannot be used for this distribution
    :raises MkimageError: the guest has no enabled repository
    """
    guest.mkdir_p(_REPOSITORIES)
    guest.chmod(0o700, DIRECTORY)  # a mirror's or proxy's password is in there
    texts = [guest.read_file(path).decode() for path in guest.glob_expand("/etc/yum.repos.d/*.repo")]
    repositories = dnf_repositories.rewrite(texts, distribution, mirror, environ, address)
    guest.write(f"{_REPOSITORIES}/amphora.repo", repositories.encode())
    main = dict(_MAIN)
    bundle = dnf_repositories.ca_bundle(environ)
    if bundle is not None:
        guest.write(_CA_BUNDLE, bundle)
        main["sslcacert"] = _CA_BUNDLE
    text = "[main]\n" + "".join(f"{name}={value}\n" for name, value in main.items())
    guest.write(_CONFIGURATION, text.encode())
    guest.mkdir_p("/etc/rpm")
    for name in _MACROS:
        guest.write(f"/etc/rpm/{name}", (FILES / name).read_bytes())


def metadata(guest: Guest) -> str:
    """Fetch the repositories' metadata, and give a hash that changes whenever a package of theirs does."""
    _dnf(guest, "makecache", what="cannot read the package repositories")
    digest = hashlib.sha256()
    for path in guest.glob_expand(f"{CACHE}/*/repodata/repomd.xml"):
        digest.update(path.encode() + b"\0" + guest.read_file(path))
    return digest.hexdigest()


def fetch(guest: Guest, wanted: Sequence[str], unwanted: Sequence[str]) -> None:
    """Download, and check, what :func:`install` will install.

    :param wanted: names of packages
    :param unwanted: names of packages that will be removed, so that no update of theirs is fetched
    :raises MkimageError: a package does not exist, cannot be fetched, or is not signed by a key of the guest's
    """
    excluded = [f"--exclude={name}" for name in unwanted]
    _dnf(guest, "upgrade", "--downloadonly", *excluded, what="cannot fetch updates")
    _dnf(guest, "install", "--downloadonly", *wanted, what="cannot fetch the packages")


def install(guest: Guest, wanted: Sequence[str], unwanted: Sequence[str]) -> None:
    """Remove, update and install packages from what was fetched; dnf checks signatures again.

    The initramfs is made once at the end, for any machine and not for the one that builds.
    """
    guest.mkdir_p(_NO_INITRAMFS.rpartition("/")[0])
    guest.write(_NO_INITRAMFS, b"initrd_generator=none\n")  # kernel-install(8)
    present = {package.name for package in rpm.installed(guest)}.intersection(unwanted)
    if present:
        _dnf(guest, "remove", "--disablerepo=*", *sorted(present), what="cannot remove packages")
        disable_what_is_gone(guest)
    _dnf(guest, "upgrade", "--cacheonly", what="cannot update the base system")
    _dnf(guest, "install", "--cacheonly", *wanted, what="cannot install the packages")
    _remove_old_kernels(guest)
    _make_initramfs(guest)
    guest.rm_f(_NO_INITRAMFS)


def disable_what_is_gone(guest: Guest) -> None:
    """Remove the links that enabled a unit that is no longer there, where its package's script did not."""
    for path in guest.glob_expand("/etc/systemd/system/*.wants/*"):
        if guest.is_symlink(path) and not guest.exists(path):
            guest.rm_f(path)


def finish(guest: Guest) -> None:
    """Remove what only the build needed, and the documentation and translations that came with the base image."""
    for path in (f"/etc/rpm/{_MACROS[1]}", DIRECTORY, "/var/cache/dnf", "/var/cache/libdnf5", "/var/lib/dnf/repos"):
        guest.rm_rf(path)
    for directory in ("doc", "info", "man"):
        for path in guest.glob_expand(f"/usr/share/{directory}/*"):
            guest.rm_rf(path)
    guest.command(["find", "/usr/share/locale", "-type", "f", "!", "-name", "locale.alias", "-delete"])


def _dnf(guest: Guest, *arguments: str, what: str) -> str:
    try:
        return guest.command(["dnf", f"--config={_CONFIGURATION}", *arguments])
    except BadValueError:
        raise  # the disk is too small, which says it all
    except MkimageError as error:
        told = next((line for line in error.tail if line.startswith("Error:") and len(line) > len("Error:")), "")
        raise type(error)(
            f"{what}: {told.removeprefix('Error:').strip() or error.what}",
            remedy("\n".join(error.tail)),
            tail=error.tail,
        ) from error


def remedy(output: str) -> str:
    """Say what to do about what dnf printed."""
    if re.search(r"GPG check FAILED|is not signed|public key for .* is not|signature verification", output, re.I):
        return "a package is not signed by the distribution's key: check BASE_OS_MIRROR"
    if re.search(r"No match for argument: \S*amphora-agent|Unable to find a match: .*amphora-agent", output):
        return "leave -p out for the released octavia, or use an image that has RDO's repository (DIB_LOCAL_IMAGE)"
    if re.search(r"Unable to find a match|No match for argument", output):
        return "check the package name (-k), the release (-d) and that the mirror is complete"
    return trouble.remedy(output, "BASE_OS_MIRROR")


def _remove_old_kernels(guest: Guest) -> None:
    """Leave the newest kernel only: an update is installed beside its predecessor (installonlypkgs, dnf.conf(5))."""
    packages = [
        (package.name, f"{package.version}.{package.arch}")
        for package in rpm.installed(guest)
        if package.name.startswith("kernel")
    ]
    versions = sorted((version for name, version in packages if name == "kernel-core"), key=_version_key)
    old = [f"{name}-{version}" for name, version in packages if version in versions[:-1]]
    if old:
        guest.command(["rpm", "-e", *old])


def _version_key(version: str) -> list[tuple[int, str]]:
    """Order versions of one kernel package as rpm does: numbers by value, letters by their code."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[a-zA-Z]+", version)]


def _make_initramfs(guest: Guest) -> None:
    for path in guest.glob_expand("/boot/*rescue*") + guest.glob_expand("/boot/loader/entries/*rescue*"):
        guest.rm_rf(path)  # a second initramfs, which nobody can choose where there is no menu
    for kernel in guest.glob_expand("/usr/lib/modules/*/vmlinuz"):
        version = kernel.split("/")[4]
        guest.command(["dracut", "--force", "--no-hostonly", f"/boot/initramfs-{version}.img", version])
