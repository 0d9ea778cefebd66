"""Where mirrors have their suites, and what they do with dates: real apt against small signed archives on loopback."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import tempfile
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_archive
from fault_server import Fault, FaultServer, running
from make_request import make
from signing import EXPIRED, Signer
from static_server import serving

from amphora_mkimage import plan
from amphora_mkimage.bases import host_logins, mirror
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.bases.base import Made
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.work import base_facts, open_archive

CASES = tomllib.loads(Path(__file__).with_name("mirror_layouts.toml").read_text(encoding="utf-8"))
DAY = 86400.0


@dataclass
class World:
    """A server's directory, its URL and the key that signs."""

    root: Path
    url: str
    keyring: Path
    signer: Signer

    def update(self, place: Path, base: str = "debian-minimal", *argv: str, **variables: str) -> plan.Plan:
        """Read the indexes as a build does; gives its plan."""
        made = plan.make(make("-i", base, *argv, DIB_APT_KEYRING=str(self.keyring), **variables))
        with (place / "log").open("wb", buffering=0) as log:
            open_archive(made, place / "apt", Console(log=log)).update()
        return made

    def fill(self, text: str) -> str:
        return text.replace("HOST", self.url).replace("ROOT", str(self.root))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("layouts")
    root, signer = place / "root", Signer(place, "signer")
    keyring = place / "keyring.gpg"
    keyring.write_bytes(signer.public(armour=False))
    debian = ("trixie", "trixie-updates", "trixie-security")
    small_archive.write(root / "debian", debian[:2], signer)
    small_archive.write(root / "debian-security", debian[2:], signer)
    small_archive.write(root / "whole", debian, signer)
    small_archive.write(root / "bare", debian[:1], signer)
    small_archive.write(root / "ubuntu", ("noble", "noble-updates", "noble-security"), signer)
    small_archive.write(root / "ubuntu-bare", ("noble",), signer)
    with serving(root) as url:
        yield World(root, url, keyring, signer)
    signer.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("name", CASES)
def test_layout(name: str, world: World, tmp_path: Path) -> None:
    case = CASES[name]
    for link, target in case.get("links", {}).items():
        path = world.root / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(world.root / target)
    base = case.get("base", "debian-minimal")
    variables = {key: world.fill(text) for key, text in case["variables"].items()}
    try:
        if "error" in case:
            with pytest.raises(MkimageError) as raised:
                world.update(tmp_path, base, **variables)
            text = f"{raised.value.what}\n{raised.value.remedy}"
            assert [word for word in map(world.fill, case["error"]) if word not in text] == []
            return
        made = world.update(tmp_path, base, **variables)
        found = made.archive.suites(made.request.base, made.request.release)
        assert [source.url for source in found] == [world.fill(url) for url in case["urls"]]
        assert base_facts(made, Made("", cached=False))["suites"] == [source.suite for source in found]
    finally:
        for link in case.get("links", {}):
            (world.root / link).unlink()


def serve(server: FaultServer, root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            server.files[f"/{path.relative_to(root)}"] = path.read_bytes()


def test_each_login_reaches_its_own_host_only(world: World, tmp_path: Path) -> None:
    with running() as main, running() as security:
        for server, directory, login in (
            (main, "debian", "me:Hunter2"),
            (security, "debian-security", "she:Swordfish"),
        ):
            serve(server, world.root / directory)
            wanted = f"Basic {b64encode(login.encode()).decode()}"
            server.faults = {path: Fault(login=wanted) for path in server.files}
        urls = [
            server.url.replace("//", f"//{login}@")
            for server, login in ((main, "me:Hunter2"), (security, "she:Swordfish"))
        ]
        made = world.update(tmp_path, BASE_OS_MIRROR=urls[0], DIB_DEBIAN_SECURITY_MIRROR=urls[1])
        for server in (main, security):
            assert len({seen.headers.get("authorization") for seen in server.seen}) == 1
        assert "Hunter2" not in repr(made) and "Swordfish" not in repr(made)
        assert not re.search("Hunter2|Swordfish", (tmp_path / "log").read_text())
        lines = f"default:deb {urls[0]} trixie main\nsecurity:deb {urls[1]} trixie-security main"
        (tmp_path / "all").mkdir()
        made = world.update(tmp_path / "all", DIB_APT_SOURCES_CONF=lines)
        assert "Hunter2" not in repr(made) and "Swordfish" not in repr(made)
        assert len(made.archive.logins) == 2
        del main.seen[:], security.seen[:]
        with pytest.raises(MkimageError) as raised:  # she is nobody at the other
            world.update(tmp_path, BASE_OS_MIRROR=main.url, DIB_DEBIAN_SECURITY_MIRROR=urls[1])
        assert "the server wants a login" in raised.value.remedy
        assert {seen.headers.get("authorization") for seen in main.seen} == {None}


def test_an_ipv6_address_keeps_its_brackets(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http.server.ThreadingHTTPServer.address_family", socket.AF_INET6)
    with running(host="::1") as server:
        serve(server, world.root / "whole")
        wanted = f"Basic {b64encode(b'me:Hunter2').decode()}"
        server.faults = {path: Fault(login=wanted) for path in server.files}
        monkeypatch.setenv("no_proxy", "[::1]")
        made = world.update(tmp_path, BASE_OS_MIRROR=server.url.replace("//", "//me:Hunter2@"))
        assert made.archive.main == server.url
        assert made.archive.main.startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default:deb http://m.example/debian trixie-updates main", "no line with the suite trixie"),
        ("default:deb http://me:Hunter2@m.example/debian", "the line 'default' is not"),
        ("default:deb [trusted=yes] http://m.example/debian trixie main", "option trusted"),
        ("default:deb [signed-by=/k] http://m.example/debian trixie main", "option signed-by"),
        ("default:deb [arch=amd64 allow-insecure=yes] http://m.example/debian trixie main", "option allow-insecure"),
        ("default:deb gopher://m.example/debian trixie main", "the line 'default' is not"),
        ("default:deb http://m.example/debian trixie;rm main", "the line 'default' is not"),
    ],
)
def test_lines_that_cannot_be_used_are_refused(text: str, words: str) -> None:
    with pytest.raises(BadValueError) as raised:
        make(DIB_APT_SOURCES_CONF=text)
    assert words in raised.value.what
    assert "Hunter2" not in f"{raised.value.what} {raised.value.remedy}"


def test_sources_without_security_are_said() -> None:
    warnings: list[str] = []
    make(DIB_APT_SOURCES_CONF="default:deb http://m.example/debian trixie main", warnings=warnings)
    assert any("trixie-security" in text for text in warnings)


def dated(world: World, place: Path, *options: str, **fields: str) -> str:
    """An archive with dates of its own; gives its URL."""
    root = world.root / f"dated-{place.name}"
    small_archive.write(root, ("trixie", "trixie-updates", "trixie-security"), world.signer, *options, **fields)
    return f"{world.url}/{root.name}"


def test_an_index_that_has_expired(world: World, tmp_path: Path) -> None:
    url = dated(world, tmp_path, Valid_Until=small_archive.date(-DAY))
    with pytest.raises(MkimageError) as raised:
        world.update(tmp_path, BASE_OS_MIRROR=url)
    assert "is expired" in raised.value.what
    words = r"the mirror's index has expired since (24h|1d) .*: it no longer follows its archive, or this host's clock "
    assert re.match(words + r"\(.*Z\) is ahead; .*: --dated-mirror", raised.value.remedy)
    made = world.update(tmp_path, "debian-minimal", "--dated-mirror", BASE_OS_MIRROR=url)
    assert made.request.summary["dated_mirror"] is True
    assert base_facts(made, Made("", cached=False))["expired_accepted"] is True


def test_a_dated_mirror_is_still_signed_by_the_key(world: World, tmp_path: Path) -> None:
    other = Signer(tmp_path, "other")
    root = world.root / f"other-{tmp_path.name}"
    suites = ("trixie", "trixie-updates", "trixie-security")
    small_archive.write(root, suites, other, Valid_Until=small_archive.date(-DAY))
    other.close()
    with pytest.raises(MkimageError) as raised:
        world.update(tmp_path, "debian-minimal", "--dated-mirror", BASE_OS_MIRROR=f"{world.url}/{root.name}")
    assert "not signed by the expected key" in raised.value.remedy
    release = root / "dists/trixie/InRelease"
    release.write_bytes(release.read_bytes().replace(b"Codename: trixie", b"Codename: trixiE"))
    with pytest.raises(MkimageError):
        world.update(tmp_path, "debian-minimal", "--dated-mirror", BASE_OS_MIRROR=f"{world.url}/{root.name}")


def test_a_dated_mirrors_signature_has_not_expired(world: World, tmp_path: Path) -> None:
    url = dated(world, tmp_path, *EXPIRED)
    with pytest.raises(MkimageError) as raised:
        world.update(tmp_path, "debian-minimal", "--dated-mirror", BASE_OS_MIRROR=url)
    assert "has expired" in raised.value.remedy and "DIB_APT_KEYRING" in raised.value.remedy


def test_a_dated_mirror_is_not_of_tomorrow(world: World, tmp_path: Path) -> None:
    """The switch lifts the last day only: nobody pins a day that has not come."""
    url = dated(world, tmp_path, Date=small_archive.date(DAY))
    for argv in ([], ["--dated-mirror"]):
        with pytest.raises(MkimageError) as raised:
            world.update(tmp_path, "debian-minimal", *argv, BASE_OS_MIRROR=url)
        assert "is not valid yet" in raised.value.what
        assert re.fullmatch(
            r"this host's clock \(.*Z\) is behind the mirror by (23h|1d) ?.*: set it", raised.value.remedy
        )


@pytest.mark.parametrize("place", ["auth.conf", "auth.conf.d/private.conf"])
def test_the_login_of_this_hosts_apt_for_its_own_mirror(
    place: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "trixie"})
    etc = tmp_path / "etc"
    (etc / "auth.conf.d").mkdir(parents=True)
    (etc / "lists/partial").mkdir(parents=True)
    settings = {"Dir::Etc": etc, "Dir::Etc::SourceParts": "/dev/null", "Dir::Etc::Parts": "/dev/null"}
    settings |= {"Dir::State::Lists": etc / "lists", "Dir::Cache": etc, "APT::Sandbox::User": "root"}
    (etc / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(etc / "apt.conf"))
    with running() as server:
        serve(server, world.root / "whole")
        wanted = f"Basic {b64encode(b'me:Hunter2').decode()}"
        server.faults = {path: Fault(login=wanted) for path in server.files}
        suites = ("trixie", "trixie-updates", "trixie-security")
        lines = [f"deb [signed-by={world.keyring} arch=amd64] {server.url} {suite} main\n" for suite in suites]
        (etc / "sources.list").write_text("".join(lines))
        others = "# machine no.example login a password b\nmachine other.example login she password Swordfish\n"
        (etc / place).write_text(f"{others}machine {server.url}\n  login me\n  password Hunter2\n")
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)
        made = world.update(tmp_path)
        assert (made.archive.origin, made.archive.main) == ("this host's apt", server.url)
        assert [line.split()[1] for line in made.archive.logins] == [server.url]
        assert "Hunter2" not in repr(made) + (tmp_path / "log").read_text()
        (etc / place).unlink()
        with pytest.raises(MkimageError) as raised:
            world.update(tmp_path)
        assert "the server wants a login" in raised.value.remedy and "BASE_OS_MIRROR" in raised.value.remedy


@pytest.fixture
def ordinary() -> Iterator[None]:
    """Have no privilege, though the tests may be root's: root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield
    os.seteuid(before)


def test_a_login_that_may_not_be_read_is_named_by_its_file(ordinary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # tmp_path is below a directory that only its owner may enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        etc = Path(place)
        monkeypatch.setenv("APT_CONFIG", str(etc / "apt.conf"))
        (etc / "apt.conf").write_text(f'Dir::Etc "{etc}";\n')
        (etc / "auth.conf").touch(mode=0)
        assert host_logins.read(["http://m.example/debian"]).unread == (str(etc / "auth.conf"),)


def test_a_file_that_may_not_be_read_is_in_the_remedy(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "amd64", "", "", [], Console(), unread=["/etc/apt/auth.conf.d/x.conf"])
    assert "/etc/apt/auth.conf.d/x.conf may have it" in archive._advice("  401  Unauthorized [IP: 192.0.2.1 80]")
    assert "x.conf" not in archive._advice("  403  Forbidden [IP: 192.0.2.1 80]")
