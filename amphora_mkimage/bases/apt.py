"""Install packages with the apt of a guest: from an archive that is offered to it, without network.

The verbs are the guest's, so this works in a namespace and in an appliance alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage.guest.protocol import Guest

#: Where the guest sees the archive (:attr:`Archive.directory`).
OFFERED = "/run/amphora-archive"
#: Scripts that run in the image.
FILES = Path(__file__).with_name("files")

_POLICY = "/usr/sbin/policy-rc.d"
_SCRIPT = "/run/amphora-script"
_UNWANTED = "/etc/dpkg/dpkg.cfg.d/90-amphora-no-documentation"
#: What no amphora reads. Copyright files stay: redistribution asks for them (deb-policy 12.5).
NO_DOCUMENTATION = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)
_OPTIONS = (
    f"Dir::State::Lists={OFFERED}/lists",
    f"Dir::Cache::Archives={OFFERED}/archives",
    f"Dir::Etc::SourceList={OFFERED}/sources.list",
    "Dir::Etc::SourceParts=/dev/null",
    "Dir::Etc::PreferencesParts=/dev/null",
    "APT::Install-Recommends=false",
    "APT::Get::AllowUnauthenticated=false",
    # The archive is read-only, and nobody else is in the guest.
    "Debug::NoLocking=true",
    "DPkg::Use-Pty=false",
    # A file of the base image that somebody changed there stays as it is.
    "DPkg::Options::=--force-confdef",
    "DPkg::Options::=--force-confold",
)


def install(guest: Guest, wanted: Sequence[str], removed: Sequence[str]) -> None:
    """Bring a system up to date, install packages and purge others, with what these leave unneeded.

    :param guest: in which the archive is offered at :data:`OFFERED`, with every package file that this takes
    :param wanted: names
    :param removed: names of installed packages
    :raises MkimageError: apt or a package's script failed
    """
    guest.write(_UNWANTED, "".join(f"{line}\n" for line in NO_DOCUMENTATION).encode())
    put_script(guest, _POLICY, "policy-rc.d")
    run_script(guest, "defer")
    options = [word for option in _OPTIONS for word in ("-o", option)]
    # One run: what is upgraded, wanted and removed is resolved together, as Archive.resolve did.
    words = ["-y", "-q", "--no-download", "--purge", "--auto-remove", *options]
    guest.command(["apt-get", *words, "dist-upgrade", *wanted, *(f"{name}-" for name in removed)])
    run_script(guest, "deferred")
    guest.rm_f(_POLICY)
    for directory, kept in (("doc", "copyright"), ("locale", "locale.alias")):
        guest.command(["find", f"/usr/share/{directory}", "-type", "f", "!", "-name", kept, "-delete"])
    for directory in ("man", "info", "lintian"):
        for path in guest.glob_expand(f"/usr/share/{directory}/*"):
            guest.rm_rf(path)


def put_script(guest: Guest, path: str, name: str) -> None:
    """Write a program of :data:`FILES` into the guest."""
    guest.write(path, (FILES / name).read_bytes())
    guest.chmod(0o755, path)


def run_script(guest: Guest, name: str) -> str:
    """Run a script of :data:`FILES` in the guest."""
    put_script(guest, _SCRIPT, name)
    return guest.command([_SCRIPT])
