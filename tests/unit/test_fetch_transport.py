"""Redirects, certificates, credentials and proxies, against real servers on loopback."""

from __future__ import annotations

import base64
import email.utils
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fault_server import Fault, FaultServer, make_certificate, running

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.fetch import transport
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import Policy, TransientError, ca_bundle, refuse

POLICY = Policy(attempts=2, first_delay=0.001, longest_delay=0.002)
SECRET = "Hunter2secret"
LOGIN = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("ca") / "key.pem")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*transport.CA_VARIABLES, "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("NETRC", "/dev/null")


@pytest.fixture
def plain() -> Iterator[FaultServer]:
    with running() as server:
        server.files["/file"] = b"content"
        yield server


@pytest.fixture
def secure(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("CURL_CA_BUNDLE", f"{certificate}.crt")
    with running(certificate) as server:
        server.files["/file"] = b"content"
        yield server


def fetch(url: str, stream: io.StringIO | None = None) -> bytes:
    target = Memory()
    fetch_all([Transfer(Location.parse(url), target, 1000, POLICY)], Console(stream or io.StringIO()))
    return bytes(target.content)


def test_a_redirect_is_followed(plain: FaultServer) -> None:
    plain.faults["/moved"] = Fault(location="sub/again")
    plain.faults["/sub/again"] = Fault(location=f"{plain.url}/file")
    assert fetch(f"{plain.url}/moved") == b"content"


def test_redirects_end(plain: FaultServer) -> None:
    plain.faults["/round"] = Fault(location="/round")
    with pytest.raises(MkimageError, match="more than 5 times"):
        fetch(f"{plain.url}/round")
    assert len(plain.asked("/round")) == 6


def test_a_redirect_whose_body_has_no_end(plain: FaultServer) -> None:
    plain.faults["/moved"] = Fault(location="/file", length=1 << 40)
    assert fetch(f"{plain.url}/moved") == b"content"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://[::1", ""])
def test_a_redirect_to_what_is_no_http_url(target: str, plain: FaultServer) -> None:
    plain.faults["/moved"] = Fault(statuses=[302], headers={"Location": target})
    with pytest.raises(MkimageError, match="no URL"):
        fetch(f"{plain.url}/moved")


def test_https_with_a_ca_of_ones_own(secure: FaultServer) -> None:
    assert fetch(f"{secure.url}/file") == b"content"


def test_a_redirect_from_https_to_http_is_not_followed(secure: FaultServer, plain: FaultServer) -> None:
    secure.faults["/moved"] = Fault(location=f"{plain.url}/file")
    with pytest.raises(MkimageError, match="from https to plain http"):
        fetch(f"{secure.url}/moved")
    assert plain.seen == []


def test_a_redirect_from_http_to_https_is_followed(secure: FaultServer, plain: FaultServer) -> None:
    plain.faults["/moved"] = Fault(location=f"{secure.url}/file")
    assert fetch(f"{plain.url}/moved") == b"content"


def test_a_certificate_that_is_not_trusted(secure: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURL_CA_BUNDLE")
    with pytest.raises(MkimageError, match=r"certificate is not trusted: self.signed certificate") as raised:
        fetch(f"{secure.url}/file")
    assert "CURL_CA_BUNDLE" in raised.value.remedy
    assert secure.seen == []


def test_a_certificate_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_certificate(tmp_path / "key.pem", "DNS:mirror.example")
    monkeypatch.setenv("CURL_CA_BUNDLE", f"{other}.crt")
    with running(other) as server, pytest.raises(MkimageError, match="certificate is not trusted"):
        fetch(f"{server.url}/file")


def test_https_to_a_server_that_speaks_http(plain: FaultServer) -> None:
    with pytest.raises(MkimageError, match="cannot fetch https://"):
        fetch(f"{plain.url.replace('http:', 'https:')}/file")


def test_which_ca_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    second.touch()
    assert ca_bundle({"CURL_CA_BUNDLE": str(first), "SSL_CERT_FILE": str(second)}) == str(first)
    assert ca_bundle({"CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": str(second)}) == str(second)
    with pytest.raises(HostError, match="SSL_CERT_FILE"):
        ca_bundle({"SSL_CERT_FILE": str(tmp_path / "missing")})
    monkeypatch.setattr(transport, "SYSTEM_BUNDLES", (str(tmp_path / "missing"), str(second)))
    assert ca_bundle({}) == str(second)
    monkeypatch.setattr(transport, "SYSTEM_BUNDLES", ())
    assert ca_bundle({}) is True


def with_login(url: str) -> str:
    return url.replace("//", f"//user:{SECRET}@")


def test_credentials_in_a_url(plain: FaultServer) -> None:
    plain.faults["/file"] = Fault(login=LOGIN)
    assert fetch(with_login(f"{plain.url}/file")) == b"content"


def test_credentials_stay_with_their_host(plain: FaultServer) -> None:
    with running() as other:
        other.files["/file"] = b"content"
        plain.faults["/moved"] = Fault(location="/again")
        plain.faults["/again"] = Fault(location=f"{other.url}/file")
        assert fetch(with_login(f"{plain.url}/moved")) == b"content"
        assert [seen.headers.get("authorization") for seen in plain.seen] == [LOGIN, LOGIN]
        assert "authorization" not in other.seen[0].headers


def test_credentials_of_a_redirect_are_not_used(plain: FaultServer) -> None:
    plain.faults["/moved"] = Fault(location=with_login(f"{plain.url}/file"))
    assert fetch(f"{plain.url}/moved") == b"content"
    assert all("authorization" not in seen.headers for seen in plain.seen)


@pytest.mark.parametrize("status", [401, 403, 404, 500, 418])
def test_credentials_are_not_told(status: int, plain: FaultServer) -> None:
    plain.faults["/file"] = Fault(statuses=[status] * 9)
    stream = io.StringIO()
    with pytest.raises(MkimageError) as raised:
        fetch(with_login(f"{plain.url}/file?token={SECRET}"), stream)
    told = f"{raised.value} {raised.value.remedy} {raised.value.tail} {stream.getvalue()}"
    assert "/file" in told
    assert SECRET not in told
    assert raised.value.__cause__ is None or SECRET not in repr(raised.value.__cause__)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/file", "https://127.0.0.1:9/file", "http://\x00/file"])
def test_credentials_are_not_told_when_nobody_is_there(url: str) -> None:
    stream = io.StringIO()
    with pytest.raises(MkimageError) as raised:
        fetch(with_login(url), stream)
    assert SECRET not in f"{raised.value} {raised.value.remedy} {stream.getvalue()}"


def test_a_proxy_is_used_and_its_password_not_told(plain: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.files["http://mirror.invalid/file"] = b"through the proxy"
    monkeypatch.setenv("http_proxy", with_login(plain.url))
    assert fetch("http://mirror.invalid/file") == b"through the proxy"
    monkeypatch.setenv("http_proxy", with_login("http://127.0.0.1:9"))
    monkeypatch.setenv("https_proxy", with_login("http://127.0.0.1:9"))
    for url in ("http://mirror.invalid/file", "https://mirror.invalid/file"):
        stream = io.StringIO()
        with pytest.raises(MkimageError, match="the proxy: Connection refused") as raised:
            fetch(url, stream)
        assert SECRET not in f"{raised.value} {raised.value.remedy} {stream.getvalue()}"


def test_what_a_proxy_answers_is_told(plain: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", with_login(plain.url))  # it does not know CONNECT, and answers 501
    with pytest.raises(MkimageError, match="the proxy: Tunnel connection failed: 501") as raised:
        fetch("https://mirror.invalid/file")
    assert SECRET not in str(raised.value)
    assert "mirror.invalid" not in str(raised.value).partition("Tunnel")[2]


def test_a_host_without_address() -> None:
    with pytest.raises(MkimageError, match="the host has no address"):
        fetch("http://mirror.invalid/file")


def answer(status: int, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


@pytest.mark.parametrize(
    ("asked", "waits"), [("0", 0), ("7", 7), ("3600", 120), ("9" * 30, None), ("soon", None), ("-1", None), ("", None)]
)
def test_retry_after_is_honoured_and_bounded(asked: str, waits: float | None) -> None:
    with pytest.raises(TransientError) as raised:
        refuse(answer(503, retry_after=asked), Location("http://x/"), Policy())
    assert raised.value.retry_after == waits


def test_retry_after_as_a_date() -> None:
    for seconds, low, high in ((100_000, 120, 120), (60, 1, 60), (-100, 0, 0)):
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        with pytest.raises(TransientError) as raised:
            refuse(answer(429, retry_after=date), Location("http://x/"), Policy())
        assert raised.value.retry_after is not None
        assert low <= raised.value.retry_after <= high


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("https://mirror.example/a/b", "https://mirror.example/a/b", None),
        ("https://u:p%40%2F@mirror.example:8443/a", "https://mirror.example:8443/a", ("u", "p@/")),
        ("http://u@[::1]:80/a?b=c#d", "http://[::1]:80/a?b=c", ("u", "")),
        ("file:///srv/a%20b", "file:///srv/a%20b", None),
        ("/srv/a b#c", "file:///srv/a%20b%23c", None),
    ],
)
def test_locations(text: str, url: str, login: tuple[str, str] | None) -> None:
    location = Location.parse(text)
    assert (location.url, location.login) == (url, login)
    assert "p@/" not in repr(location)
    assert "?" not in location.shown


@pytest.mark.parametrize(
    "text", ["ftp://mirror.example/a", "https://", "http://[::1", "http://h:x/", "http://h o/", "s3://x/y"]
)
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(BadValueError):
        Location.parse(text)


def test_places_below_a_location() -> None:
    location = Location.parse("https://u:p@mirror.example/images/?token=x")
    assert location.child("a b/c").url == "https://mirror.example/images/a%20b/c?token=x"
    assert location.child("").url == "https://mirror.example/images/?token=x"
    assert location.child("a").login == ("u", "p")
    assert Location.parse("/srv/images").child("a b").path == Path("/srv/images/a b")
    assert Location.parse("/srv/images").child("").path == Path("/srv/images")


def test_which_ways_are_protected() -> None:
    for text in ("https://mirror.example/", "/srv", "http://127.0.0.1/", "http://[::1]:8/", "http://localhost/"):
        assert Location.parse(text).protected
    for text in (
        "http://mirror.example/",
        "http://127.0.0.1.mirror.example/",
        "http://10.0.0.1/",
        "http://localhost.x/",
    ):
        assert not Location.parse(text).protected
