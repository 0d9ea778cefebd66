"""What the words mean by which apt, dnf, pip, git and Python's TLS tell of a network's trouble, and what to do.

One table for all of them: who meets an expired certificate or a proxy's refusal is told the same, whatever program met
it first. Clocks come before all else, because a wrong one makes every other check fail.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong; in the order in which it is looked for."""

    NOT_YET_VALID = "not yet valid"
    INDEX_EXPIRED = "index expired"
    CERTIFICATE_NOT_YET_VALID = "certificate not yet valid"
    CERTIFICATE_EXPIRED = "certificate expired"
    CLIENT_CERTIFICATE = "client certificate"
    OTHER_HOST = "certificate of another host"
    UNSAID_CERTIFICATE = "certificate"
    UNKNOWN_CA = "certificate of an unknown authority"
    PROXY_LOGIN = "login of the proxy"
    LOGIN = "login"
    FORBIDDEN = "forbidden"
    DAMAGED = "damaged"
    NO_SPACE = "no space"
    PROXY_NAME = "name of the proxy"
    PROXY_REFUSED = "proxy refused"
    NAME = "name"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "time-out"


#: By kind, what its words look like. OpenSSL's, GnuTLS's, apt's, libcurl's, librepo's, pip's.
_WORDS = {
    Kind.NOT_YET_VALID: r"is not valid yet \(invalid for another (?P<span>[^)]+)\)",
    Kind.INDEX_EXPIRED: r"is expired \(invalid since (?P<span>[^)]+)\)",
    Kind.CERTIFICATE_NOT_YET_VALID: (
        r"certificate is not yet valid|not yet valid certificate|certificate not activated yet|CERT_NOT_YET_VALID"
    ),
    Kind.CERTIFICATE_EXPIRED: (
        r"certificate has expired|expired certificate|certificate expiration date has passed|CERT_HAS_EXPIRED"
    ),
    Kind.CLIENT_CERTIFICATE: (
        r"Could not load client certificate|unable to set private key file|could not load PEM client certificate"
    ),
    Kind.OTHER_HOST: (
        r"does NOT match|[Hh]ostname mismatch|IP address mismatch|no alternative certificate subject name"
        r"|certificate subject name .* does not match|hostname \S+ doesn't match|it is for another host"
    ),
    # libcurl with GnuTLS, which git has on Debian, says no more.
    Kind.UNSAID_CERTIFICATE: r"server certificate verification failed",
    Kind.UNKNOWN_CA: (
        r"certificate issuer is unknown|self[- ]signed certificate|unable to get (?:local )?issuer certificate"
        r"|CERTIFICATE_VERIFY_FAILED|certificate verify failed"
        r"|certificate is NOT trusted|certificate signer not trusted"
    ),
    Kind.PROXY_LOGIN: (
        r"\b407\b.*(?:Proxy|authenti)|Tunnel connection failed: 407|(?:CONNECT|Tunnel|tunnel|proxy).{0,60}\b407\b"
    ),
    Kind.LOGIN: r"\b401\s+Unauthor|error:? 401\b|Status code: 401|\b401 Client Error|Authentication failed for",
    Kind.FORBIDDEN: r"\b403\s+Forbidden|error:? 403\b|Status code: 403|\b403 Client Error",
    Kind.DAMAGED: r"Hash Sum mismatch|unexpected size|checksum doesn't match|Package .* is corrupt",
    Kind.NO_SPACE: r"No space left|needs \S+ more space|At least \S+ more space",
    Kind.PROXY_NAME: r"[Cc]ould not resolve proxy|proxy has no address|ProxyError.*(?:Name or service|resolution)",
    Kind.PROXY_REFUSED: (
        r"ProxyError|[Cc]annot connect to proxy|the proxy: Connection refused|Invalid response from proxy"
        r"|HTTP code \d+ from proxy|Tunnel connection failed"
        # pip from 26 on does not speak of a proxy: it connected to another place than the URL names.
        r"|HTTPConnection\(host='([^']+)', port=(\d+)\).*refused\]?.*: https?://(?!\1:\2/)(?!\1/)"
    ),
    Kind.NAME: (
        r"Could not resolve|Temporary failure resolving|Something wicked happened resolving|has no address"
        r"|Name or service not known|NameResolutionError|nodename nor servname|name resolution"
    ),
    Kind.REFUSED: r"Connection refused|Failed to connect to|Couldn't connect to server",
    Kind.UNREACHABLE: r"Network is unreachable|No route to host|Unable to connect to",
    Kind.TIMEOUT: r"[Cc]onnection timed out|Timeout was reached|[Tt]imed out|no answer in time|too slow",
}

_PROXIES = "(http_proxy, https_proxy)"
_BUNDLE = "name the bundle of its CA with CURL_CA_BUNDLE"


@dataclass(frozen=True)
class Trouble:
    """A trouble that was recognised.

    :param kind: what it is
    :param span: by how much a date was missed, as apt writes it ("1d 2h 3min 4s"), or ""
    """

    kind: Kind
    span: str = ""

    def remedy(self, variable: str, *, index_switch: str = "") -> str:
        """Return what to do about it.

        :param variable: what names another place to fetch from
        :param index_switch: what accepts an index that has expired, where something does
        """
        texts = {
            Kind.NOT_YET_VALID: f"{clock('is behind the mirror')} by {self.span}: set it",
            Kind.INDEX_EXPIRED: (
                f"the mirror's index has expired since {self.span}: it no longer follows its archive, or {clock()} is "
                f"ahead{f'; for a mirror that is of a date on purpose: {index_switch}' if index_switch else ''}"
            ),
            Kind.CERTIFICATE_NOT_YET_VALID: f"the certificate's time has not come by {clock()}: set the clock",
            Kind.CERTIFICATE_EXPIRED: (
                f"the server's certificate has expired by {clock()}: set the clock if it is ahead, else name another "
                f"server with {variable}"
            ),
            Kind.CLIENT_CERTIFICATE: (
                "the client certificate of this host's configuration, or its key, may not be read by you: get read "
                f"access, or name a mirror that needs none with {variable}"
            ),
            Kind.OTHER_HOST: f"the server's certificate is for another host: correct {variable}",
            Kind.UNSAID_CERTIFICATE: f"{_BUNDLE}, where that is the trouble, or set {clock()} if it is wrong",
            Kind.UNKNOWN_CA: f"the server's certificate is signed by nobody whom this host knows: {_BUNDLE}",
            Kind.PROXY_LOGIN: "the proxy wants a login: put it into http_proxy and https_proxy (http://USER:PASSWORD@HOST:PORT)",
            Kind.LOGIN: f"the server wants a login, or another one: put it into {variable} (http://USER:PASSWORD@HOST/...)",
            Kind.FORBIDDEN: f"the server, or a proxy on the way, forbids it: ask who runs it, or correct {variable}",
            Kind.DAMAGED: "the mirror or a proxy on the way serves damaged files: try again, or another mirror",
            Kind.NO_SPACE: "free some space, or work elsewhere with -w",
            Kind.PROXY_NAME: "the proxy's name has no address: correct http_proxy and https_proxy",
            Kind.PROXY_REFUSED: "the proxy does not serve it: correct http_proxy, https_proxy or no_proxy",
            Kind.NAME: f"the host's name has no address here: correct {variable}, or set a proxy {_PROXIES}",
            Kind.REFUSED: f"nothing answers there: correct {variable}, or the proxy {_PROXIES}",
            Kind.UNREACHABLE: f"this host has no way to it: correct {variable}, or set a proxy {_PROXIES}",
            Kind.TIMEOUT: f"it does not answer in time: try again, or name another place with {variable}",
        }
        return texts[self.kind]


def recognise(text: str) -> Trouble | None:
    """Return the trouble that a program's output tells of, None where it is none of these."""
    for kind, words in _WORDS.items():
        match = re.search(words, text)
        if match:
            return Trouble(kind, match.groupdict().get("span") or "")
    return None


def remedy(text: str, variable: str, *, index_switch: str = "", other: str = "") -> str:
    """Return what to do about a program's output.

    :param variable: as for :meth:`Trouble.remedy`
    :param other: where the cause is none of the known ones
    """
    found = recognise(text)
    if found is not None:
        return found.remedy(variable, index_switch=index_switch)
    return other or f"check the network, the proxy variables and {variable}"


def clock(state: str = "") -> str:
    """Return the words for this host's clock, with what it says now."""
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    return f"this host's clock ({now}){f' {state}' if state else ''}"
