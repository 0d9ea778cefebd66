"""The same proxy variables mean the same to apt, pip, git and our own downloads: each for real, on loopback."""

from __future__ import annotations

import contextlib
import io
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fault_server import FaultServer, running
from make_request import make
from package_index import isolate_pip

from amphora_mkimage import cli, proxies
from amphora_mkimage.agent import branch, download, git
from amphora_mkimage.bases import dnf_repositories
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import Policy
from amphora_mkimage.proxies import Proxies

CASES = tomllib.loads(Path(__file__).with_name("proxies.toml").read_text(encoding="utf-8"))["cases"]


def ask_apt(url: str, place: Path) -> None:
    source = f"deb [trusted=yes] {url}apt trixie main\n"
    Archive(place / "apt", "amd64", source, 'Acquire::Retries "0";\n', [], Console(io.StringIO())).update()


def ask_pip(url: str, place: Path) -> None:
    os.environ |= {"PIP_INDEX_URL": f"{url}simple", "PIP_TRUSTED_HOST": str(urlsplit(url).hostname)}
    download.download(["nothing==1"], place, "3.13", "amd64", Console(io.StringIO()), source=False, hashes=False)


def ask_git(url: str, place: Path) -> None:
    checkout = branch.Checkout("octavia", Location.parse(f"{url}git/octavia"), "master", "-g")
    git.find(checkout, Console(io.StringIO()))


def ask_requests(url: str, place: Path) -> None:
    fetch_all([Transfer(Location.parse(f"{url}file"), Memory(), 1 << 20, Policy(attempts=1))], Console(io.StringIO()))


PROGRAMS = {"apt": ask_apt, "pip": ask_pip, "git": ask_git, "requests": ask_requests}


@dataclass
class Servers:
    """Both know nothing, and answer 404."""

    host: FaultServer
    proxy: FaultServer

    def fill(self, text: str) -> str:
        netloc = urlsplit(self.host.url).netloc
        port = str(self.host.http.server_port)
        return text.replace("HOST", netloc).replace("PORT", port).replace("PROXY", str(self.proxy.http.server_port))

    def environment(self, case: dict[str, Any]) -> dict[str, str]:
        """The variables of a case."""
        variable = case.get("variable", "http_proxy")
        found = {
            variable: self.fill(case.get("proxy", self.proxy.url)),
            "no_proxy": self.fill(case.get("no_proxy", "")),
        }
        return {name.upper() if case.get("capitals") else name: value for name, value in found.items() if value}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running() as host, running() as proxy:
        yield Servers(host, proxy)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate_pip(monkeypatch)
    for name in proxies.NAMES:
        monkeypatch.setenv(name, "")  # so that what the product changes there is undone
        monkeypatch.delenv(name)
    for name in ("PIP_INDEX_URL", "PIP_TRUSTED_HOST"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_program_understands_the_same(
    case: dict[str, Any], program: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in servers.environment(case).items():
        monkeypatch.setenv(name, value)
    cli._tidy_environment()
    servers.host.seen.clear()
    servers.proxy.seen.clear()
    with contextlib.suppress(MkimageError):
        PROGRAMS[program](servers.fill(case["url"]), tmp_path)
    asked = (bool(servers.host.seen), bool(servers.proxy.seen))
    assert asked == (not case["proxied"] and not case.get("nobody"), case["proxied"])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_dnf_is_told_the_same(case: dict[str, Any], servers: Servers) -> None:
    text = f"[baseos]\nbaseurl={servers.fill(case['url'])}\n"
    found = dnf_repositories.rewrite([text], "centos", "", servers.environment(case))
    assert (f"proxy={servers.proxy.url}" in found) is case["proxied"]
    assert ("proxy=" in found) is case["proxied"]


@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        ("fd00::/8", "http://[fd00::5]:3142/debian", True),
        ("fd00::/8", "http://[fe80::5]/debian", False),
        ("[fd00::5]", "http://[FD00:0::5]/debian", True),
        ("[fd00::5]:80", "http://[fd00::5]/debian", True),
        ("[fd00::5]:80", "https://[fd00::5]/debian", False),
        ("example.org", "http://a.Example.org./debian", True),
        ("*.example.org", "http://a.example.org/debian", True),
        ("*.example.org", "http://example.org/debian", True),
        (".example.org:8080", "http://a.example.org:8080/", True),
        (".example.org:8080", "http://a.example.org/", False),
        ("example.org", "http://notexample.org/debian", False),
        ("10.1.2.3/8", "http://10.9.9.9/", True),
        ("*:8080", "http://anything.example:8080/", True),
    ],
)
def test_entries(entry: str, url: str, direct: bool) -> None:
    given = Proxies.read({"http_proxy": "http://p:1", "https_proxy": "http://p:1", "no_proxy": entry})
    assert given.direct(url) is direct
    assert Proxies.read(given.settled()) == given


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5h://me:Hunter2@127.0.0.1:1080", "SOCKS"),
        ("ftp://me:Hunter2@p.example", "not the URL"),
        ("http://me:Hunter2@p.example:port", "not the URL"),
        ("http://", "not the URL"),
        ('http://me:Hunter2@p.example"; x', "not the URL"),
    ],
)
def test_proxies_that_cannot_be_used_are_refused_before_any_work(name: str, value: str, words: str) -> None:
    with pytest.raises(BadValueError, match=words) as raised:
        make(**{name: value})
    assert raised.value.what.startswith(name)
    assert "Hunter2" not in raised.value.what + raised.value.remedy


def test_entries_that_mean_nothing_are_said() -> None:
    warnings: list[str] = []
    make(no_proxy="<local>, 10.*, mirror.example", warnings=warnings)
    assert [text.split("'")[1] for text in warnings if text.startswith("no_proxy")] == ["<local>", "10.*"]


def test_a_proxys_password_is_in_no_representation() -> None:
    assert "Hunter2" not in repr(Proxies.read({"http_proxy": "http://me:Hunter2@p.example"}))
