"""Which archive a build uses, and how its credentials and the host's proxy settings reach apt and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from amphora_mkimage import process
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases.base import Base
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.plain_paths import is_plain

#: Variables by which people name a CA bundle of their own (curl's, OpenSSL's, requests'); the first that is set wins.
CA_VARIABLES = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Mirror:
    """The URLs that suites are fetched from, without credentials.

    :param main: URL of the archive, "" for the repositories that the base image names
    :param security: URL that carries the security suites; the same, or another archive
    :param origin: how it was chosen, for the summary
    :param logins: lines for apt_auth.conf(5); secret
    """

    main: str
    security: str
    origin: str
    logins: tuple[str, ...] = field(default=(), repr=False)

    def sources(self, base: Base, release: str, signed_by: str) -> str:
        """Give the sources.list(5) text with every suite of a release.

        :param signed_by: keyring; where its path cannot be written there, apt is told of it in another way
            (:class:`~amphora_mkimage.bases.archive.Archive`)
        """
        lines = []
        option = f"[signed-by={signed_by}] " if is_plain(Path(signed_by)) else ""
        for pattern in base.releases[release].suites:
            url = self.security if pattern.endswith("-security") else self.main
            lines.append(f"deb {option}{url} {pattern.format(release)} {' '.join(base.components)}\n")
        return "".join(lines)


def choose(base: Base, release: str, url: str, arch: str = "amd64") -> Mirror:
    """Choose the archive: the user's, else the one that the host's own apt uses, else mmdebstrap's default.

    :param url: the user's mirror, or ""
    :param arch: dpkg's name of the image's architecture
    :raises HostError: mmdebstrap, which would be asked, is missing
    """
    if base.dnf and not url:
        return Mirror("", "", "the repositories of its image")
    if url:
        bare, logins = _split_credentials(url)
        return Mirror(bare, _security_beside(bare, base), "BASE_OS_MIRROR", logins)
    return _of_host(base, arch) or _of_mmdebstrap(base, release, arch)


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


def _split_credentials(url: str) -> tuple[str, tuple[str, ...]]:
    """Move user and password out of a URL into apt_auth.conf(5) lines, so that no log or argv ever has them."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, ()
    host = parts.hostname or ""
    if parts.port is not None:
        host += f":{parts.port}"
    bare = urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))
    login = (
        f"machine {parts.scheme}://{host} login {unquote(parts.username)} password {unquote(parts.password or '')}\n"
    )
    return bare, (login,)


def _security_beside(url: str, base: Base) -> str:
    """Find where a mirror carries the security suites.

    Debian mirrors have them in an archive of their own, "debian-security" beside "debian"; Ubuntu's, and small
    repositories of one's own, in the same archive.
    """
    head, _, last = url.rpartition("/")
    return f"{head}/debian-security" if base.distribution == last == "debian" else url


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
    bare, logins = _split_credentials(main)
    security, more = _split_credentials(urls.get(f"{codename}-security", _security_beside(main, base)).rstrip("/"))
    return Mirror(bare, security, "this host's apt", logins + more)


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
    suites: dict[str, str] = {}
    for line in done.stdout.splitlines():
        match = re.match(r"deb (?:\[.*?\] )?(https?://\S+) (\S+)", line)
        if match:
            suites[match[2]] = match[1].rstrip("/")
    if release not in suites:
        raise MkimageError(
            f"mmdebstrap knows no mirror for {base.name} {release}",
            "set BASE_OS_MIRROR to the URL of one",
            tail=done.stdout.splitlines()[-5:],
        )
    return Mirror(suites[release], suites.get(f"{release}-security", suites[release]), "mmdebstrap's default")


def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip("\"'") for key, value in pairs}
