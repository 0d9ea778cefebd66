"""What a distribution publishes and who signs it: descriptions only, nothing here reaches the network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from amphora_mkimage.errors import BadValueError

GIB = 1 << 30


class Signed(Enum):
    """How a file of checksums is signed."""

    NOT = "not"  #: only the connection protects it
    DETACHED = "detached"  #: by a file beside it
    CLEAR = "clear"  #: inside itself (RFC 9580, 7: cleartext signature framework)


@dataclass(frozen=True)
class Location:
    """A URL without its credentials, and the credentials, so that printing one never tells the other.

    :param url: http, https or file URL
    :param login: user and password; secret
    :param variable: what names another place, for messages
    """

    url: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    variable: str = field(default="DIB_CLOUD_IMAGES", repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a URL, or a path of this host.

        :raises BadValueError: it is neither; the message does not repeat it, because it may hold a password
        """
        if "://" not in text:
            return cls(Path(text).expanduser().absolute().as_uri())
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadValueError("a URL cannot be read", "check its host and port") from error
        if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
            return cls(urlunsplit(("file", "", parts.path, "", "")))
        if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in text):
            raise BadValueError("a URL is none of http, https and file", "for example: https://mirror.example/images")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        netloc = host if port is None else f"{host}:{port}"
        url = urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
        if parts.username is None:
            return cls(url)
        return cls(url, (unquote(parts.username), unquote(parts.password or "")))

    @property
    def shown(self) -> str:
        """The URL as messages and manifests show it: without a query, which may hold a token."""
        return self.url.partition("?")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def path(self) -> Path | None:
        """The path, when it is on this host."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def host(self) -> str:
        """The host as messages name it."""
        return urlsplit(self.url).hostname or ""

    @property
    def origin(self) -> tuple[str, str]:
        """Scheme, and host with port: what credentials belong to."""
        parts = urlsplit(self.url)
        return parts.scheme, parts.netloc

    @property
    def protected(self) -> bool:
        """Whether nobody on the way can change what comes from there: TLS, or it does not leave this host."""
        parts = urlsplit(self.url)
        if parts.scheme != "http":
            return True
        try:
            return ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            return parts.hostname == "localhost"

    def child(self, name: str) -> Location:
        """Give a file or directory below this one; with "", this one with a slash, as servers want it for a listing."""
        parts = urlsplit(self.url)
        path = f"{parts.path.rstrip('/')}/{quote(name)}"
        return replace(self, url=urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))


@dataclass(frozen=True)
class SigningKey:
    """Keys that may sign, known by their full fingerprints.

    :param fingerprints: of primary keys, in capitals without spaces; no other key is ever used
    :param published_at: where the publisher states the fingerprints
    :param keyrings: files of the host that may hold the keys; the first with one of them is used
    :param urls: where the keys are fetched from when the host has none
    """

    fingerprints: tuple[str, ...]
    published_at: str
    keyrings: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Publication:
    """One root filesystem that is published with checksums.

    :param title: what messages call it ("Ubuntu noble")
    :param root: URL that a mirror replaces; it may hold credentials
    :param path: directory below the root
    :param image: regular expression for the whole file name; of several that match, the highest numbers are the newest
    :param kind: what the file is: "tar" or "qcow2"
    :param sums: name of the file of checksums, or a regular expression for it when ``listed``
    :param algorithm: of the checksums, "sha256" or "sha512"
    :param listed: the name of the file of checksums has to be looked up in the directory
    :param signature: name of the detached signature
    :param maximum_bytes: a larger file is refused
    """

    title: str
    root: str = field(repr=False)
    path: str
    image: str
    kind: str
    sums: str
    algorithm: str = "sha256"
    listed: bool = False
    signed: Signed = Signed.NOT
    signature: str = ""
    key: SigningKey | None = None
    maximum_bytes: int = 8 * GIB

    @property
    def directory(self) -> Location:
        """Where its files are."""
        return Location.parse(self.root).child(self.path)


def redirect(publication: Publication, directory: str) -> Publication:
    """Take the files from another directory, as DIB_CLOUD_IMAGES says; what is verified stays the same.

    :param directory: URL or path of the directory that holds the files
    :raises BadValueError: it is no URL
    """
    Location.parse(directory)
    return replace(publication, root=directory, path="")


def on_mirror(publication: Publication, root: str) -> Publication:
    """Take the files from a mirror with the publisher's own layout; what is verified stays the same.

    :param root: URL or path that corresponds to the publication's root
    :raises BadValueError: it is no URL
    """
    Location.parse(root)
    return replace(publication, root=root)
