"""Install packages with the apt of a guest, from files that the host fetched and verified, without any network.

The host's :class:`~amphora_mkimage.bases.archive.Archive` has resolved and downloaded; what of it the guest may see
goes into a directory of its own, which either guest then shows it read-only. apt in the guest resolves again, and finds
every package there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.guest.protocol import Guest

#: Where the guest sees what :func:`offer` made; under /run, of which nothing stays.
OFFERED = "/run/offered"
_ARCHIVES = f"{OFFERED}/archives"
#: Links to these, because apt makes and changes a directory beside them, which what is offered does not allow.
_LINKS = "/run/amphora-archives"
#: Settings in place of all that the guest has: an image of one's own may have hooks that end every run of apt without
#: a network (apt-listbugs), or ask for a release that is not there. What APT_CONFIG names is read before the other
#: files are looked for; an option on the command line comes too late (apt.conf(5)).
_SETTINGS = "/run/amphora-apt.conf"
#: Scripts that run in the image.
FILES = Path(__file__).with_name("files")

_POLICY = "/usr/sbin/policy-rc.d"
_SCRIPT = "/run/amphora-script"
#: Builds of GRUB for CD-ROMs and the network, and unsigned twins of the signed ones: nothing starts from them.
_OTHER_GRUBS = (
    "/usr/lib/grub/*-efi/monolithic/*",
    "/usr/lib/grub/*-efi-signed/gcd*",
    "/usr/lib/grub/*-efi-signed/grubnet*",
)
#: Where dpkg reads :data:`UNREAD`; it stays, for packages that are installed later.
UNREAD_FILE = "/etc/dpkg/dpkg.cfg.d/90-amphora-unread"
#: What no amphora reads. Copyright files stay: redistribution asks for them (deb-policy 12.5).
UNREAD = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    *(f"path-exclude={pattern}" for pattern in _OTHER_GRUBS),
)
_OPTIONS = (
    f"Dir::State::Lists={OFFERED}/lists",
    f"Dir::Cache::Archives={_LINKS}",
    f"Dir::Etc::SourceList={OFFERED}/sources.list",
    "Dir::Etc::SourceParts=/dev/null",
    "Dir::Etc::Preferences=/dev/null",
    "Dir::Etc::PreferencesParts=/dev/null",
    "APT::Install-Recommends=false",
    "APT::Get::AllowUnauthenticated=false",
    # What is offered is read-only, and nobody else is in the guest.
    "Debug::NoLocking=true",
    "APT::Sandbox::User=root",
    "DPkg::Use-Pty=false",
    # A file of the base image that somebody changed there stays as it is.
    "DPkg::Options::=--force-confdef",
    "DPkg::Options::=--force-confold",
)


def offer(archive: Archive, debs: Sequence[Deb], directory: Path, console: Console) -> None:
    """Put packages into a directory to be offered to a guest, with an index of them and nothing else.

    Not the archive's own indexes: apt in the guest would read 50 MB of them, minutes under emulation. And nothing of
    what lies beside them: not the mirror's credentials.

    :param archive: with the packages downloaded
    :param directory: made; best on the filesystem of the archive, because files are linked where that is possible
    """
    for part in ("archives", "lists"):
        (directory / part).mkdir(parents=True)
        (directory / part / "partial").mkdir(mode=0o700)  # apt looks whether it is there
    stanzas = []
    for deb in debs:
        target = directory / "archives" / deb.file_name
        _link(archive.archives / deb.file_name, target)
        control = process.run(["dpkg-deb", "--field", os.fspath(target)], console, what="cannot read a package")
        stanzas.append(f"{control}\nFilename: ./{deb.file_name}\nSize: {deb.size}\nSHA256: {deb.sha256}\n")
    # What "apt-get update" would make of the index of a repository without structure at this place (sources.list(5)).
    index = directory / "lists" / f"{_ARCHIVES.replace('/', '_')}_._Packages"
    index.write_text("\n".join(stanzas), encoding="utf-8")
    # Trusted, because the host has checked the archive's signature and the hash of each file.
    (directory / "sources.list").write_text(f"deb [trusted=yes] file:{_ARCHIVES} ./\n", encoding="ascii")


def install(guest: Guest, wanted: Sequence[str], removed: Sequence[str]) -> None:
    """Bring a system up to date, install packages and purge others, with what these leave unneeded.

    :param guest: mounted, with what :func:`offer` made shown at :data:`OFFERED`
    :param wanted: names
    :param removed: names of installed packages
    :raises MkimageError: apt or a package's script failed
    """
    guest.write(UNREAD_FILE, "".join(f"{line}\n" for line in UNREAD).encode())
    own_policy = not guest.exists(_POLICY)
    if own_policy:
        put_script(guest, _POLICY, "policy-rc.d")
    run_script(guest, "defer")
    options = [word for option in _OPTIONS for word in ("-o", option)]
    # One run: what is upgraded, wanted and removed is resolved together, as Archive.resolve did.
    words = ["-y", "-q", "--no-download", "--purge", "--auto-remove", *options]
    guest.write(_SETTINGS, (FILES / "apt.conf").read_bytes())
    guest.mkdir_p(f"{_LINKS}/partial")
    debs = [f"{_ARCHIVES}/{name}" for name in guest.ls(_ARCHIVES) if name.endswith(".deb")]
    if debs:
        guest.command(["ln", "-s", "-t", _LINKS, *debs])
    guest.command(
        [
            "env",
            f"APT_CONFIG={_SETTINGS}",
            "apt-get",
            *words,
            "dist-upgrade",
            *wanted,
            *(f"{name}-" for name in removed),
        ]
    )
    # What was pending in an image of one's own stays so where there is nothing to install.
    guest.command(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
    run_script(guest, "deferred")
    guest.rm_rf(_LINKS)
    guest.rm_f(_SETTINGS)
    if own_policy:
        guest.rm_f(_POLICY)
    run_script(guest, "remove-unread")
    for pattern in _OTHER_GRUBS:
        for path in guest.glob_expand(pattern):
            guest.rm_rf(path)


def put_script(guest: Guest, path: str, name: str) -> None:
    """Write a program of :data:`FILES` into the guest."""
    guest.write(path, (FILES / name).read_bytes())
    guest.chmod(0o755, path)


def run_script(guest: Guest, name: str) -> str:
    """Run a script of :data:`FILES` in the guest."""
    put_script(guest, _SCRIPT, name)
    return guest.command([_SCRIPT])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copyfile(source, target)
