"""One HTTP request: certificates, proxies, credentials, redirects, and what each failure means.

Only this module and those that import it need requests; import them where something is downloaded, not before.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

from amphora_mkimage import trouble
from amphora_mkimage.bases.mirror import CA_VARIABLES
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.proxies import Proxies
from amphora_mkimage.trouble import Kind, Trouble

try:
    import requests
    import urllib3
    from requests.auth import HTTPBasicAuth
except ImportError as missing:
    raise HostError("the Python package requests is not installed", "install the package python3-requests") from missing

#: The bundles of Debian and its relatives, of Fedora and its relatives, and of SUSE. Requests' own (certifi) does not
#: know the CA that a company added to the host.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
_REDIRECTS = (301, 302, 303, 307, 308)
_REFUSALS = {401: Kind.LOGIN, 403: Kind.FORBIDDEN, 407: Kind.PROXY_LOGIN}
_Error = TypeVar("_Error", bound=BaseException)


@dataclass(frozen=True)
class Policy:
    """How patient downloads are; all times in seconds.

    :param attempts: in a row without progress, before it is given up
    :param progress: bytes that count as progress
    :param first_delay: before the second attempt; doubles with each further one, and a random part of it is left out
    :param longest_delay: bound of that
    :param longest_retry_after: bound of the delay that a server asks for
    :param read_timeout: without any byte; also the span over which the rate is measured
    :param slowest: bytes a second; what is slower is broken off and tried again
    """

    attempts: int = 5
    progress: int = 1 << 20
    first_delay: float = 1.0
    longest_delay: float = 30.0
    longest_retry_after: float = 120.0
    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    slowest: int = 1024
    redirects: int = 5

    @property
    def answer_timeout(self) -> float:
        """How long an answer may take to begin, redirects included."""
        return (self.connect_timeout + self.read_timeout) * (self.redirects + 1)


class TransientError(Exception):
    """What may go away by itself.

    :param retry_after: seconds after which the server wants to be asked again, if it said so
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class NotThereError(MkimageError):
    """The server is there and does not have the file."""


class Session(requests.Session):
    """A session that leaves redirects to :func:`get`, also in the ways that ``allow_redirects=False`` does not."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find none: else requests would read the whole body of each, however long, and judge its URL."""


def ca_bundle(environ: Mapping[str, str]) -> str | bool:
    """Give the CA bundle for https: the one that a variable names, else the host's, else requests' own.

    :raises HostError: the one that a variable names is not there
    """
    for name in CA_VARIABLES:
        if environ.get(name):
            if not Path(environ[name]).exists():
                raise HostError(f"{name} names a CA bundle that is not there: {environ[name]}", f"correct {name}")
            return environ[name]
    return next((bundle for bundle in SYSTEM_BUNDLES if Path(bundle).is_file()), True)


def get(
    session: Session, location: Location, headers: Mapping[str, str], policy: Policy, verify: str | bool
) -> requests.Response:
    """Send one GET and follow redirects; gives the answer, of whatever status, with its body unread.

    Redirects are followed here and not by requests, which would go from https to http. Credentials belong to the host
    that they were given for, and go to no other.

    :raises TransientError: no answer came
    :raises MkimageError: none will come
    """
    here = location
    for _ in range(policy.redirects + 1):
        with translated(here):
            response = session.get(
                here.url,
                headers=dict(headers),
                auth=HTTPBasicAuth(here.login[0].encode(), here.login[1].encode()) if here.login else None,
                timeout=(policy.connect_timeout, policy.read_timeout),
                # An empty one is none: requests' own reading of the variables is not asked.
                proxies={here.origin[0]: Proxies.read(os.environ).of(here.url)},
                verify=verify,
                stream=True,
                allow_redirects=False,
            )
        if response.status_code not in _REDIRECTS:
            return response
        target = response.headers.get("location", "")
        response.close()
        here = _follow(here, target)
    raise MkimageError(
        f"{location.shown} is redirected more than {policy.redirects} times",
        f"name another place with {location.variable}",
    )


def refuse(response: requests.Response, location: Location, policy: Policy) -> NoReturn:
    """Raise what an answer means that brings no content."""
    status = response.status_code
    said = f"{location.shown}: the server says {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        raise NotThereError(
            f"{location.shown} is not there ({status})",
            f"check the release and the architecture, or name another place with {location.variable}",
        )
    if status in _REFUSALS:
        raise MkimageError(said, Trouble(_REFUSALS[status]).remedy(location.variable))
    if status in (408, 425, 429) or status >= 500:
        asked = _retry_after(response.headers.get("retry-after", ""))
        raise TransientError(
            f"the server says {status} {response.reason or ''}".rstrip(),
            None if asked is None else min(asked, policy.longest_retry_after),
        )
    raise MkimageError(said, trouble.remedy("", location.variable))


@contextlib.contextmanager
def translated(location: Location) -> Iterator[None]:
    """Turn the network's exceptions into ours; their texts are not used, because they may hold URLs of proxies."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        distrust = _distrust(error)
        if distrust:
            raise MkimageError(
                f"{location.shown}: the server's certificate is not trusted: {distrust}",
                trouble.remedy(distrust, location.variable, other=f"name the bundle of its CA with {CA_VARIABLES[0]}"),
            ) from None
        if isinstance(error, requests.exceptions.InvalidProxyURL):
            raise MkimageError("a proxy variable holds no usable URL", "correct http_proxy or https_proxy") from None
        if isinstance(error, ValueError):  # every kind of unusable URL
            raise MkimageError(
                f"{location.shown} cannot be asked for: its URL or a proxy's is not usable", "correct it"
            ) from None
        reason = _reason(error)
        if re.search(r"Tunnel connection failed: 4[0-9][0-9]", reason):
            raise MkimageError(
                f"{location.shown}: the proxy refuses: {reason}", trouble.remedy(reason, location.variable)
            ) from None
        raise TransientError(reason) from None


def _follow(here: Location, target: str) -> Location:
    try:
        url = requests.utils.requote_uri(urljoin(here.url, target))
        found = Location.parse(url) if urlsplit(url).scheme in ("http", "https") and target else None
    except (BadValueError, ValueError, requests.RequestException):
        found = None
    if found is None:
        raise MkimageError(
            f"{here.shown} is redirected to something that is no URL", f"name another place with {here.variable}"
        )
    if here.origin[0] == "https" and found.origin[0] == "http":
        raise MkimageError(
            f"{here.shown} is redirected from https to plain http ({found.shown}): not followed",
            f"name one that stays with https ({here.variable})",
        )
    return Location(found.url, here.login if found.origin == here.origin else None, here.variable)


def _retry_after(text: str) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3): seconds, or a date."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _distrust(error: BaseException) -> str:
    """Say what is wrong with a certificate, "" if that is not the trouble."""
    certificate = _cause(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        return str(certificate.verify_message)
    # urllib3 before version 2 compares host names itself, with an exception of its own.
    return "it is for another host" if _cause(error, ValueError, _is_of_another_host) else ""


def _is_of_another_host(error: ValueError) -> bool:
    return type(error).__name__ == "CertificateError"


def _reason(error: BaseException) -> str:
    # urllib3 counts a refused connection among the time-outs.
    refused = urllib3.exceptions.NewConnectionError
    if _cause(error, urllib3.exceptions.TimeoutError, lambda found: not isinstance(found, refused)):
        return "no answer in time"
    if _cause(error, socket.gaierror) is not None:
        return f"{'the proxy' if isinstance(error, requests.exceptions.ProxyError) else 'the host'} has no address"
    # Requests' own exceptions are OSErrors too, whose text has the URL in it.
    system = _cause(error, OSError, lambda found: not isinstance(found, requests.RequestException) and bool(found.args))
    reason = (system.strerror or str(system)) if system is not None else "the connection broke off"
    return f"the proxy: {reason}" if isinstance(error, requests.exceptions.ProxyError) else reason


def _cause(error: BaseException, kind: type[_Error], fits: Callable[[_Error], bool] | None = None) -> _Error | None:
    """Find an exception of a kind inside another; requests and urllib3 wrap in arguments, reasons and contexts."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop()
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        if isinstance(found, kind) and (fits is None or fits(found)):
            return found
        seen.add(id(found))
        waiting += [found.__context__, found.__cause__, getattr(found, "reason", None), *found.args]
    return None
