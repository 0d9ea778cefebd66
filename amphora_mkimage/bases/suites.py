"""Which suites a build takes, from which archives: what mirrors keep where, and what the user says of it.

Debian's archive has its security suites in another archive than the others. Mirrors have that one beside the first,
below it, elsewhere or not at all, so it can be named; diskimage-builder's variables for that have their meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from amphora_mkimage.bases.base import Base
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.setting import Value

SECURITY_MIRROR = "DIB_DEBIAN_SECURITY_MIRROR"
SECURITY_SUBPATH = "DIB_DEBIAN_SECURITY_SUBPATH"
ALL_SUITES = "DIB_APT_SOURCES_CONF"

#: What apt fetches with, and is on every host that has apt.
_SCHEMES = ("http", "https", "ftp", "file", "copy")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9._+-]+)*")
_SUBPATH = re.compile(r"[A-Za-z0-9._+/-]+")
#: The directory of an archive of Debian, with a date of Debian's snapshot service below it or without.
_DEBIAN = re.compile(r"(.*/)(debian)(/\d{8}T\d{6}Z)?", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One suite of an archive.

    :param url: with credentials if it has any
    """

    url: str = field(repr=False)
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What the user says about an archive's layout.

    :param security: URL of the archive that has the security suites, "" for the usual place
    :param subpath: what follows the name of the security suite
    :param sources: all suites that are to be taken; empty for those of the release
    """

    security: str = field(default="", repr=False)
    subpath: str = ""
    sources: tuple[Source, ...] = ()


def read(values: Mapping[str, Value], base: Base, release: str, warn: Callable[[str], None]) -> Layout:
    """Read what the user says.

    :param values: from :func:`amphora_mkimage.settings.resolve`
    :param warn: takes each remark
    :raises BadValueError: something of it cannot be used
    """
    if base.dnf:
        return Layout()
    sources = _sources(values["apt_sources"], release)
    if sources:
        _remark(values, sources, f"{release}-security", warn)
    security, subpath = values["security_mirror"], str(values["security_subpath"].value or "")
    if base.distribution != "debian":
        return Layout(sources=sources)
    if subpath and not _SUBPATH.fullmatch(subpath):
        raise BadValueError(f"{values['security_subpath'].origin}: {subpath!r} is not part of a suite's name")
    return Layout(check_url(security, "http://mirror.example/debian-security"), subpath, sources)


def check_url(value: Value, example: str = "http://mirror.example/debian") -> str:
    """Check the URL of an archive; it may carry a password, and is not repeated.

    :returns: without a slash at its end, "" where nothing is said
    :raises BadValueError: apt could not use it
    """
    url = str(value.value or "")
    if url and not usable(url):
        raise BadValueError(f"{value.origin}: not the URL of a mirror", f"for example: {example}")
    return url.rstrip("/")


def usable(url: str) -> bool:
    """Tell whether apt can use a URL, and sources.list(5) can hold it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that are not an IPv6 address, a port that is not a number
        return False
    if re.search(r"[\s|]", url) or re.search(r"[\[\]]", parts.path + parts.query + parts.fragment):
        return False
    if parts.scheme in ("file", "copy"):
        return parts.netloc == "" and parts.path.startswith("/")
    return parts.scheme in _SCHEMES and bool(parts.hostname) and port != 0


def split(url: str) -> tuple[str, tuple[str, ...]]:
    """Move user and password out of a URL into apt_auth.conf(5) lines, so that no log or argv ever has them.

    A directory of this host becomes a ``copy:`` URL, with which apt puts packages where all others are.
    """
    parts = urlsplit(url)
    if parts.scheme in ("file", "copy"):
        return f"copy:{parts.path}", ()
    if parts.username is None:
        return url, ()
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))
    user, password = unquote(parts.username), unquote(parts.password or "")
    # apt compares with the host as it is without the brackets of an IPv6 address (netrc.cc, MaybeAddAuth).
    machine = f"{parts.scheme}://{host.replace('[', '').replace(']', '')}"
    return bare, (f"machine {machine} login {user} password {password}\n",)


def security_beside(url: str, base: Base) -> str:
    """Find where a mirror carries the security suites.

    Debian mirrors have them in an archive of their own, "debian-security" beside "debian", and so has the snapshot
    service, with the date below both; Ubuntu's, and small repositories of one's own, in the same archive.
    """
    match = _DEBIAN.fullmatch(url)
    if base.distribution != "debian" or match is None:
        return url
    return f"{match[1]}{match[2]}-security{match[3] or ''}"


def _remark(values: Mapping[str, Value], sources: Sequence[Source], security: str, warn: Callable[[str], None]) -> None:
    origin = values["apt_sources"].origin
    if not any(source.suite.startswith(security) for source in sources):
        warn(f"{origin} has no line with {security}: the image gets no security updates from there")
    for name in ("mirror", "security_mirror", "security_subpath"):
        if values[name].said:
            warn(f"{values[name].origin} is unused: {origin} names every suite with its archive")


def _sources(value: Value, release: str) -> tuple[Source, ...]:
    """Read lines of the form "NAME:deb URL SUITE COMPONENT...", as diskimage-builder's debian-minimal takes them."""
    found = []
    for line in str(value.value or "").splitlines():
        name, _, entry = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if entry.split(maxsplit=1)[:1] != ["deb-src"]:  # an amphora has no use for sources
            found.append(_source(entry, name, value.origin))
    if value.said and not any(source.suite == release for source in found):
        raise BadValueError(
            f"{value.origin} has no line with the suite {release}",
            f"for example: default:deb http://mirror.example/debian {release} main",
        )
    return tuple(found)


def _source(entry: str, name: str, origin: str) -> Source:
    match = re.fullmatch(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)+)\s*", entry)
    if match is None or not usable(match[2]) or not _SUITE.fullmatch(match[3]):
        # The URL may carry a password: it is not repeated.
        what = f"{origin}: the line {name!r} is not NAME:deb URL SUITE COMPONENT..."
        raise BadValueError(what, "for example: default:deb http://mirror.example/debian trixie main")
    for option in (match[1] or "").split():
        if not option.startswith("arch="):
            raise BadValueError(
                f"{origin}: the line {name!r} has the option {option.partition('=')[0]}, which cannot be used",
                "leave it out; DIB_APT_KEYRING names the keys of all suites",
            )
    return Source(match[2].rstrip("/"), match[3], tuple(match[4].split()))
