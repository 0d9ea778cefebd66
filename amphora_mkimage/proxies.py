"""One meaning of the proxy variables for apt, dnf, pip, git and our own downloads.

Each of these reads ``no_proxy`` in another way: apt compares ends of names and knows neither blanks, ``*`` nor
networks; curl knows no ports, and networks since 7.86 only; requests compares ends of names, and networks of IPv4 only.
So the variables are read here, once, and rewritten to what all of them understand alike. Where a program's reading
still differs, it is told about the hosts in question one by one.

An entry of ``no_proxy`` is ``*`` for all hosts; a name, which stands for the host and all below it, with a leading dot
or ``*.`` or without; an address; or a network (``10.0.0.0/8``, ``fd00::/8``) for URLs that name an address. A port
restricts it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from amphora_mkimage.errors import BadValueError

#: By what they say, in small letters first, as all programs read them.
HTTP = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
HTTPS = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
EXEMPT = ("no_proxy", "NO_PROXY")
#: All that this module rewrites.
NAMES = tuple(dict.fromkeys((*HTTP, *HTTPS, *EXEMPT)))

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PORTS = {"http": 80, "https": 443, "ftp": 21}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Exempt:
    """One entry of no_proxy.

    :param what: a name, or a network; "*" for all
    :param port: of the URLs that it is about, None for all
    """

    what: str | _Network
    port: int | None = None

    def matches(self, host: str, port: int | None) -> bool:
        """Tell whether it is about a host."""
        if self.port is not None and self.port != port:
            return False
        if self.what == "*":
            return True
        address = _address(host)
        if isinstance(self.what, str):
            return address is None and (host == self.what or host.endswith(f".{self.what}"))
        return address is not None and address in self.what


@dataclass(frozen=True)
class Proxies:
    """What the variables say.

    :param http: URL of the proxy for http URLs, "" for none; it may hold a password
    :param https: for https URLs
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    exempt: tuple[Exempt, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str], warn: Callable[[str], None] | None = None) -> Proxies:
        """Read the variables.

        :param warn: takes a remark about each entry of no_proxy that means nothing
        :raises BadValueError: a proxy cannot be used by every program; the message does not repeat it
        """
        entries = []
        name = _first(EXEMPT, environ)
        for text in re.split(r"[,\s]+", environ.get(name, "").strip()):
            entry = _entry(text)
            if entry is not None:
                entries.append(entry)
            elif text and warn is not None:
                warn(f"{name}: {text!r} is not a name, an address or a network, and exempts nothing")
        return cls(_proxy(HTTP, environ), _proxy(HTTPS, environ), tuple(dict.fromkeys(entries)))

    def direct(self, url: str) -> bool:
        """Tell whether a URL's host is to be reached without a proxy."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or _PORTS.get(parts.scheme)
        return any(entry.matches(host, port) for entry in self.exempt)

    def of(self, url: str) -> str:
        """Return the proxy for a URL, "" for none."""
        proxy = {"http": self.http, "https": self.https}.get(urlsplit(url).scheme, "")
        return "" if self.direct(url) else proxy

    def settled(self) -> dict[str, str]:
        """Return the variables in one form, from which all of them can be read again."""
        words = ",".join(_word(entry) for entry in self.exempt)
        found = {"http_proxy": self.http, "https_proxy": self.https, "no_proxy": words}
        return {name: value for name, value in found.items() if value}

    def environment(self, urls: Iterable[str] = ()) -> dict[str, str]:
        """Return the variables as programs of all kinds take them alike; those that are missing have to be unset.

        :param urls: that will be asked for: what is known of their hosts is written out
        """
        if any(entry == Exempt("*") for entry in self.exempt):
            return {"no_proxy": "*"}
        found = {"http_proxy": self.http, "https_proxy": self.https}
        words = [_word(entry) for entry in self.exempt if entry.port is None]
        words += [_host_word(url) for url in urls if self.direct(url)]
        found["no_proxy"] = ",".join(dict.fromkeys(words))
        return {name: value for name, value in found.items() if value}

    def for_url(self, url: str) -> dict[str, str]:
        """Return the variables for a program that asks for one URL: nothing of them is left to its own reading."""
        proxy = self.of(url)
        return {f"{urlsplit(url).scheme}_proxy": proxy} if proxy else {"no_proxy": "*"}


def replace(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with other proxy variables, and none in capitals."""
    return {name: value for name, value in environ.items() if name not in NAMES} | dict(variables)


def _first(names: Iterable[str], environ: Mapping[str, str]) -> str:
    return next((name for name in names if environ.get(name, "").strip()), "")


def _proxy(names: Iterable[str], environ: Mapping[str, str]) -> str:
    name = _first(names, environ)
    text = environ.get(name, "").strip()
    if not text:
        return ""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that are not an IPv6 address, a port that is not a number
        parts, port = urlsplit(""), None
    if parts.scheme.startswith("socks"):
        what = f"{name} names a SOCKS proxy, which not every program of a build can use"
        raise BadValueError(what, "name a proxy for HTTP, as http://proxy.example:3128")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r'[\s"]', url):
        # It may hold a password: it is not repeated.
        raise BadValueError(f"{name} is not the URL of a proxy", "for example: http://proxy.example:3128")
    return url.rstrip("/")


def _entry(text: str) -> Exempt | None:
    """Read an entry of no_proxy, None for what is none."""
    if text == "*":
        return Exempt("*")
    word, port = text.lower(), None
    match = re.fullmatch(r"(\[[^]]*\]|[^:]*):([0-9]{1,5})", word)
    if match:
        word, port = match[1], int(match[2])
    word = word.removeprefix("[").removesuffix("]") if word.startswith("[") else word
    try:
        return Exempt(ipaddress.ip_network(word, strict=False), port)
    except ValueError:
        pass
    if word == "*":
        return Exempt("*", port)
    word = word.removeprefix("*.").removeprefix(".").removesuffix(".")
    return Exempt(word, port) if _NAME.fullmatch(word) else None


def _word(entry: Exempt) -> str:
    """Return an entry as curl, requests and apt take it."""
    if entry.what == "*":
        word = "*"
    elif isinstance(entry.what, str):
        # With the dot, none of them takes it for the end of another name; curl and requests match the host itself too.
        word = f".{entry.what}"
    else:
        word = str(entry.what.network_address) if entry.what.num_addresses == 1 else str(entry.what)
        if ":" in word and entry.port is not None:
            word = f"[{word}]"
    return word if entry.port is None else f"{word}:{entry.port}"


def _host_word(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return host if _address(host) else f".{host}"


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def apt_settings(proxies: Proxies, urls: Iterable[str]) -> str:
    """Return apt.conf(5) text that says of each host that is reached directly that it is so.

    :param urls: of the archives
    """
    lines = []
    for url in urls:
        parts = urlsplit(url)
        if parts.hostname and proxies.direct(url):
            lines.append(f'Acquire::{parts.scheme}::Proxy::{parts.hostname} "DIRECT";\n')
    return "".join(dict.fromkeys(lines))


def apt_environment(proxies: Proxies, urls: Iterable[str]) -> dict[str, str]:
    """Return the variables for apt, which takes an entry of no_proxy for the end of any name or address.

    Names below those that are exempt are safe with a dot before them, for the hosts that a mirror redirects to; the
    hosts themselves, and addresses, are in :func:`apt_settings`.
    """
    asked = list(urls)
    if asked and all(proxies.direct(url) for url in asked):
        return {}
    found = proxies.environment()
    if found.get("no_proxy") == "*":
        return {}
    names = [word for word in found.pop("no_proxy", "").split(",") if word.startswith(".")]
    if names:
        found["no_proxy"] = ",".join(names)
    # An empty one keeps apt from sending https to the proxy for http.
    return {"https_proxy": ""} | found if found else {}
