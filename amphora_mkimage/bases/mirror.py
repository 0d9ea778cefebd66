"""Which archive a build uses, and how its credentials and the host's proxy settings reach apt and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases import host_logins, suites
from amphora_mkimage.bases.base import Base
from amphora_mkimage.bases.suites import Layout, Source
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.plain_paths import is_plain

#: Variables by which people name a CA bundle of their own (curl's, OpenSSL's, requests'); the first that is set wins.
CA_VARIABLES = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Mirror:
    """The archives that suites are fetched from, without credentials.

    :param main: URL of the archive, "" for the repositories that the base image names
    :param security: URL that carries the security suites; the same, or another archive
    :param origin: how it was chosen, for the summary
    :param logins: lines for apt_auth.conf(5); secret
    :param subpath: what follows the name of the security suite
    :param own: the suites that the user named, in place of the release's
    :param unread: files of this host that may have a login, and may not be read
    """

    main: str
    security: str
    origin: str
    logins: tuple[str, ...] = field(default=(), repr=False)
    subpath: str = ""
    own: tuple[Source, ...] = ()
    unread: tuple[str, ...] = ()

    def suites(self, base: Base, release: str) -> list[Source]:
        """Return every suite of a release, or those that the user named."""
        if self.own:
            return list(self.own)
        found = []
        for pattern in base.releases[release].suites:
            suite, secure = pattern.format(release), pattern.endswith("-security")
            url, tail = (self.security, self.subpath) if secure else (self.main, "")
            found.append(Source(url, suite + tail, base.components))
        return found

    def sources(self, base: Base, release: str, signed_by: str) -> str:
        """Return the sources.list(5) text with every suite of a release.

        :param signed_by: keyring; where its path cannot be written there, apt is told of it in another way
            (:class:`~amphora_mkimage.bases.archive.Archive`)
        """
        option = f"[signed-by={signed_by}] " if is_plain(Path(signed_by)) else ""
        return "".join(
            f"deb {option}{source.url} {source.suite} {' '.join(source.components)}\n"
            for source in self.suites(base, release)
        )


def choose(base: Base, release: str, url: str, arch: str = "amd64", layout: Layout | None = None) -> Mirror:
    """Choose the archive: the user's, else the one that the host's own apt uses, else mmdebstrap's default.

    :param url: the user's mirror, or ""
    :param arch: dpkg's name of the image's architecture
    :param layout: what the user says about security suites, or about all suites
    :raises HostError: mmdebstrap, which would be asked, is missing
    """
    if base.dnf:
        return (
            Mirror(suites.split(url)[0], "", "BASE_OS_MIRROR")
            if url
            else Mirror("", "", "the repositories of its image")
        )
    layout = layout or Layout()
    if layout.sources:
        return _named(layout.sources)
    if url:
        bare, logins = suites.split(url)
        found = Mirror(bare, suites.security_beside(bare, base), "BASE_OS_MIRROR", logins)
    else:
        found = _of_host(base, arch) or _of_mmdebstrap(base, release, arch)
    if layout.security:
        security, more = suites.split(layout.security)
        found = replace(found, security=security, logins=found.logins + more)
    return replace(found, subpath=layout.subpath)


def _named(sources: Sequence[Source]) -> Mirror:
    parted = [(source, *suites.split(source.url)) for source in sources]
    own = tuple(replace(source, url=bare) for source, bare, _ in parted)
    logins = tuple(dict.fromkeys(line for *_, lines in parted for line in lines))
    return Mirror(own[0].url, own[-1].url, suites.ALL_SUITES, logins, own=own)


def apt_network_settings(environ: Mapping[str, str]) -> str:
    """Give the apt.conf(5) text with which this host's proxy, CA bundle and time-outs serve the build.

    The host's own settings are taken over where it has apt, except those that would switch certificate checks off. The
    proxy variables need no line: apt reads them by itself.
    """
    lines = []
    if shutil.which("apt-config"):
        dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
        for line in dump.splitlines():
            if re.match(r'Acquire::https?::[^ ]+ ".+";$', line) and not re.search(
                r"::Verify-(Peer|Host)\b", line, re.I
            ):
                lines.append(line)
    bundle = next((environ[name] for name in CA_VARIABLES if environ.get(name)), "")
    if bundle and Path(bundle).is_file() and '"' not in bundle:
        lines.append(f'Acquire::https::CaInfo "{bundle}";')
    return "".join(f"{line}\n" for line in lines)


def _of_host(base: Base, arch: str) -> Mirror | None:
    """Read the archive that the host's apt uses, when the host is of the same distribution and it has the image's."""
    release = _os_release()
    if release.get("ID") != base.distribution or shutil.which("apt-get") is None:
        return None
    machine = os.uname().machine
    here = next((a.name for a in ARCHITECTURES.values() if a.machine == machine), "")
    if (arch in base.ports) != (here in base.ports):
        return None
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        env=process.environment(),
        check=False,
    )
    codename = release.get("VERSION_CODENAME", "")
    urls = dict(line.split(" ", 1) for line in reversed(done.stdout.splitlines()) if " " in line)
    main = urls.get(codename, "").rstrip("/")
    if not main.startswith(("http://", "https://")):
        return None
    bare, logins = suites.split(main)
    security, more = suites.split(urls.get(f"{codename}-security", suites.security_beside(main, base)).rstrip("/"))
    found = host_logins.read([bare, security])
    lines = tuple(dict.fromkeys((*logins, *more, *found.lines)))
    return Mirror(bare, security, "this host's apt", lines, unread=found.unread)


def _of_mmdebstrap(base: Base, release: str, arch: str) -> Mirror:
    """Ask mmdebstrap which archive it would use: the sources.list that it writes, read by a hook."""
    hook = Path(__file__).with_name("hooks") / "print-sources"
    # chrootless: nothing is run in a chroot here, and an ordinary user needs no namespaces for it.
    argv = ["mmdebstrap", "--mode=chrootless", "--variant=custom", "--skip=update,download,check/qemu", "--format=null"]
    argv += [f"--architectures={arch}"]
    try:
        # The hook ends mmdebstrap by failing, as soon as it has what it came for.
        done = subprocess.run(
            # A hook is a command line for a shell, unless it is a plain path.
            [*argv, f'--setup-hook={shlex.quote(os.fspath(hook))} "$1"', release, os.devnull],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # mmdebstrap sends its hooks' output there
            text=True,
            env=process.environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError("mmdebstrap is not installed", "install the package mmdebstrap") from error
    urls: dict[str, str] = {}
    for line in done.stdout.splitlines():
        match = re.match(r"deb (?:\[.*?\] )?(https?://\S+) (\S+)", line)
        if match:
            urls[match[2]] = match[1].rstrip("/")
    if release not in urls:
        raise MkimageError(
            f"mmdebstrap knows no mirror for {base.name} {release}",
            "set BASE_OS_MIRROR to the URL of one",
            tail=done.stdout.splitlines()[-5:],
        )
    return Mirror(urls[release], urls.get(f"{release}-security", urls[release]), "mmdebstrap's default")


def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}
