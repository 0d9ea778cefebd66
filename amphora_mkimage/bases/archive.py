"""Ask the archive, through the host's apt, which packages a system consists of, and fetch them verified.

apt runs on a private directory: it reads no configuration of the host but what :mod:`~amphora_mkimage.bases.mirror`
hands it, resolves against an empty system, and checks signatures and hashes itself. Nothing here can switch those
checks off; that of an index's last day is left out for a mirror that is of a date on purpose.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from amphora_mkimage import process, proxies, trouble
from amphora_mkimage.bases import suites
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.proxies import Proxies
from amphora_mkimage.trouble import Kind

_TRUSTED = "trusted"
_URI = re.compile(r"'\S+' ([^_\s]+)_([^_\s]+)_[^_\s]+\.deb ")


#: Where nobody answered, nobody said what is missing.
_NO_ANSWER = frozenset(Kind) - {Kind.DAMAGED, Kind.NO_SPACE}
#: What apt says about what was asked for, and not about the network; first that fits.
_REMEDIES = (
    (
        r"signatures were invalid: (EXPKEYSIG|EXPSIG)",
        "the key, or the signature, has expired: update this host's keyring package, name a newer keyring with "
        "DIB_APT_KEYRING, or set this host's clock if it is ahead",
    ),
    (
        r"NO_PUBKEY|is not signed|signatures were invalid|couldn't be verified",
        "not signed by the expected key: check BASE_OS_MIRROR, or name its keyring with DIB_APT_KEYRING",
    ),
    (
        r"Unable to locate package \S*-agent\b|Package '?\S*-agent'? has no",
        "leave -p out for the released octavia, or take a release that has the package (-d)",
    ),
    (
        r"Unable to locate package|has no installation candidate",
        "check the package name (-k), the release (-d) and that the mirror is complete",
    ),
)


@dataclass(frozen=True)
class Deb:
    """One package file, as the signed index describes it.

    :param size: bytes of the file
    :param installed_size: bytes of its content, as deb-control(5) estimates it
    """

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    installed_size: int

    @property
    def file_name(self) -> str:
        """Its name in apt's archives directory."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


def apt_word(value: str) -> str:
    """Return a value as apt.conf(5) reads it.

    Between quotes apt takes everything as it is, but has no way to say a quote; outside of them it decodes %22.
    """
    if '"' not in value:
        return f'"{value}"'
    return quote(value, safe="/", errors="surrogateescape")


class Archive:
    """A private apt state.

    :param directory: where it lives; made when missing
    :param sources: text for sources.list(5)
    :param network: text for apt.conf(5), see :func:`~amphora_mkimage.bases.mirror.apt_network_settings`
    :param logins: lines for apt_auth.conf(5)
    :param status: package database of the system that packages are resolved for; an empty one by default
    :param keyring: that signs what the sources do not name one for, because its path has spaces or the like
    :param unread: files of this host that may have a login, and may not be read
    :param dated: indexes may have expired (Valid-Until); their signatures, and all else, count as ever
    """

    def __init__(
        self,
        directory: Path,
        arch: str,
        sources: str,
        network: str,
        logins: Sequence[str],
        console: Console,
        status: Path | None = None,
        *,
        keyring: Path | None = None,
        dated: bool = False,
        unread: Sequence[str] = (),
    ) -> None:
        self._unread = unread
        self.directory = directory
        self.sources = sources
        self.lists = directory / "lists"
        self.archives = directory / "archives"
        self._console = console
        for part in (self.lists / "partial", self.archives / "partial"):
            part.mkdir(parents=True, exist_ok=True)
        if status is None:
            (directory / "status").touch()
        else:
            shutil.copyfile(status, directory / "status")
        if keyring is not None:
            (directory / _TRUSTED).mkdir(exist_ok=True)
            shutil.copyfile(keyring, directory / _TRUSTED / f"keyring{keyring.suffix}")
        (directory / "sources.list").write_text(sources, encoding="utf-8")
        self._private("auth.conf", "".join(logins))
        dates = 'Acquire::Check-Valid-Until "false";\n' if dated else ""
        self._urls = re.findall(r"^deb (?:\[[^]]*\] )?(\S+)", sources, re.MULTILINE)
        direct = proxies.apt_settings(Proxies.read(os.environ), self._urls)
        self._private("apt.conf", self._configuration(arch) + network + dates + direct)

    def update(self) -> None:
        """Fetch and check the signed indexes of all suites.

        :raises MkimageError: a suite is missing, unreachable, unsigned, expired or signed by another key
        """
        self._apt("update", what="cannot read the package archive", strict=True)

    def resolve(self, packages: Iterable[str], command: str = "install") -> list[Deb]:
        """Name every package file that installing these packages takes, by name.

        :param packages: what apt-get install accepts: names, names to remove (``name-``), patterns (apt-patterns(7))
        :param command: "install", or "dist-upgrade" to bring everything else up to date as well
        :raises MkimageError: a package does not exist or its dependencies cannot be met
        """
        # --print-uris rather than --simulate: the same solution in a fifth of the time, but with MD5 sums only, so the
        # SHA256 comes from the index itself.
        output = self._apt("--print-uris", "--download-only", command, *packages, what="cannot resolve the packages")
        found = [match.group(1, 2) for line in output.splitlines() if (match := _URI.match(line))]
        names = [(name, version.replace("%3a", ":")) for name, version in found]
        records = self._records([f"{name}={version}" for name, version in names]) if names else {}
        return sorted((records[name] for name in names), key=lambda deb: deb.name)

    def dependencies(self, package: str) -> list[str]:
        """Name what a package depends on directly."""
        output = self._run(["apt-cache", "depends", "--important", package], what=f"cannot find the package {package}")
        return [match[1] for line in output.splitlines() if (match := re.match(r"\s+\|?(?:Pre)?Depends: (\S+)", line))]

    def download(self, debs: Sequence[Deb]) -> None:
        """Fetch the packages that are not in the archives directory yet; apt checks their hashes.

        :raises MkimageError: one cannot be fetched or is not what the index says
        """
        names = [f"{deb.name}={deb.version}" for deb in debs]
        self._apt("--download-only", "install", *names, what="cannot fetch the packages")

    def _records(self, names: Sequence[str]) -> dict[tuple[str, str], Deb]:
        output = self._run(["apt-cache", "show", "--no-all-versions", *names], what="cannot read the package index")
        records = {}
        for stanza in output.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if re.match(r"[A-Za-z0-9-]+: ", line))
            if "SHA256" in fields:
                records[fields["Package"], fields["Version"]] = Deb(
                    fields["Package"],
                    fields["Version"],
                    fields["Architecture"],
                    fields["SHA256"],
                    int(fields["Size"]),
                    int(fields.get("Installed-Size", "0")) * 1024,
                )
        return records

    def _apt(self, *arguments: str, what: str, strict: bool = False) -> str:
        argv = ["apt-get", "-y", "-q", *arguments]
        output = self._run(argv, what=what)
        # apt-get update calls a suite that it could not fetch a warning, and goes on with an old index or without it.
        problems = [line for line in output.splitlines() if line.startswith(("W:", "E:", "Err:"))]
        if strict and problems:
            told = next((line for line in problems if re.match(r"E:|W: (Failed|GPG)", line)), problems[-1])
            raise MkimageError(f"{what}: {_told(told)}", self._advice(output), tail=problems)
        return output

    def _run(self, argv: Sequence[str], *, what: str) -> str:
        variables = proxies.apt_environment(Proxies.read(os.environ), self._urls)
        env = proxies.replace(process.environment(), variables)
        env["APT_CONFIG"] = os.fspath(self.directory / "apt.conf")
        try:
            return process.run(argv, self._console, what=what, env=env, on_line=self._show)
        except MkimageError as error:
            errors = [line for line in error.tail if line.startswith("E:")]
            if errors:
                raise type(error)(
                    f"{what}: {_told(errors[0])}", self._advice("\n".join(error.tail)), tail=error.tail
                ) from error
            raise

    def _show(self, line: str) -> None:
        if line.startswith(("Get:", "Hit:")):
            fields = line.split()
            self._console.activity(f"downloading {' '.join(fields[4:5])}")

    def _advice(self, output: str) -> str:
        found = trouble.recognise(output)
        if found is not None and found.kind is Kind.LOGIN and self._unread:
            return f"{self._remedy(output)}; {' and '.join(self._unread)} may have it, but you may not read it"
        return self._remedy(output)

    @staticmethod
    def _remedy(output: str) -> str:
        """Return what to do about what apt printed."""
        for words, text in _REMEDIES:
            if re.search(words, output):
                return text
        found = trouble.recognise(output)
        missing = re.search(
            r"The repository '(\S+) (\S+) (?:In)?Release' (?:does not have|no longer has) a Release", output
        )
        if missing and (found is None or found.kind not in _NO_ANSWER):
            return _other_suites(missing[1], missing[2])
        return trouble.remedy(output, "BASE_OS_MIRROR", index_switch="--dated-mirror")

    def _private(self, name: str, text: str) -> None:
        """Write a file that may hold credentials so that only its owner ever could read it."""
        fd = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)

    def _configuration(self, arch: str) -> str:
        d = self.directory
        settings = {
            "Dir": d,
            "Dir::Etc": d,
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": d / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Trusted": "/dev/null",
            "Dir::Etc::TrustedParts": d / _TRUSTED if (d / _TRUSTED).exists() else "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::Etc::Netrc": d / "auth.conf",
            "Dir::Etc::NetrcParts": "/dev/null",
            "Dir::State": d,
            "Dir::State::Lists": self.lists,
            "Dir::State::Status": d / "status",
            "Dir::Cache": d,
            "Dir::Cache::Archives": self.archives,
            "Dir::Log": d,
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "APT::Install-Recommends": "false",
            # Ubuntu's phased updates: all amphorae get them, whatever machine builds.
            "APT::Get::Always-Include-Phased-Updates": "true",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            # We are root of a user namespace at most; _apt could not read a directory that is ours alone.
            "APT::Sandbox::User": "root",
            "DPkg::Use-Pty": "false",
        }
        return "".join(f"{key} {apt_word(str(value))};\n" for key, value in settings.items())


def _told(line: str) -> str:
    """Return a complaint of apt's without the mark before it."""
    return re.sub(r"^(?:[EW]|Err:\d+):? +", "", line)


def _other_suites(url: str, suite: str) -> str:
    """Return what to do about a suite that an archive does not have."""
    has_not = f"{url} has no suite {suite}: "
    if suite.partition("/")[0].endswith("-security"):
        named = f"name the archive that has it with {suites.SECURITY_MIRROR} (Debian), or all suites"
    elif "-" in suite:
        named = "name the suites that are there"
    else:
        named = f"correct BASE_OS_MIRROR, below which there is dists/{suite}, or name all suites"
    return f"{has_not}{named} with {suites.ALL_SUITES}"


@contextlib.contextmanager
def fetching(archive: Archive, debs: Sequence[Deb], store: Store, console: Console) -> Iterator[None]:
    """Have all packages in the archives directory, from the cache or fetched; the new ones go into the cache meanwhile.

    :param debs: from :meth:`Archive.resolve`
    """
    with console.step("download packages"):
        new = [deb for deb in debs if not store.take_deb(deb.sha256, archive.archives / deb.file_name)]
        size = sum(deb.size for deb in new) / 1e6
        console.note(f"{len(debs) - len(new)} packages from the cache, {size:.0f} MB to download")
        if new:
            archive.download(debs)

    def keep() -> None:
        for deb in new:
            store.put_deb(deb.sha256, archive.archives / deb.file_name)

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        kept = pool.submit(keep)
        yield
    kept.result()  # raises what went wrong there
