"""A branch's repository on a server: git over HTTP, with logins, redirects, and servers that break off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from branch_world import World
from fault_server import Fault, make_certificate, running
from package_index import serve_repository

from amphora_mkimage.agent import git


@pytest.fixture
def hosted(world: World) -> World:
    """The same, with octavia's repository on a server."""
    url = serve_repository(world.server, world.place / "octavia", "/octavia")
    world.environ["DIB_REPOLOCATION_amphora_agent"] = url
    return world


def test_a_repository_by_url(hosted: World) -> None:
    assert hosted.resolve().facts["commits"]["octavia"]["commit"] == hosted.commits["octavia"]


def cut_objects(world: World) -> None:
    for path in world.server.files:
        if path.startswith("/octavia/objects/") and "info" not in path:
            world.server.faults[path] = Fault(cut=10)


def lose_objects(world: World) -> None:
    for path in [*world.server.files]:
        if path.startswith("/octavia/objects/"):
            del world.server.files[path]


@pytest.mark.parametrize("damage", [cut_objects, lose_objects])
def test_a_repository_that_breaks_off(hosted: World, damage: Callable[[World], None]) -> None:
    damage(hosted)
    error = hosted.fails()
    assert error.what.startswith("cannot fetch octavia from ")


def test_a_repository_with_a_login(hosted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    with running(certificate) as server:
        server.files = {path: text for path, text in hosted.server.files.items() if path.startswith("/octavia/")}
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        server.faults = {path: Fault(login="Basic dXNlcjpzZXNhbWU=", headers=challenge) for path in server.files}
        url = server.url.replace("//", "//user:sesame@") + "/octavia"
        hosted.environ["DIB_REPOLOCATION_amphora_agent"] = url
        monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        (tmp_path / "config").write_text(f"[credential]\nhelper = store --file={tmp_path}/kept\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
        agent = hosted.resolve()
        assert not (tmp_path / "kept").exists()
        assert agent.facts["commits"]["octavia"]["repository"] == f"{server.url}/octavia"
        assert b"sesame" not in hosted.log.getvalue()
        server.faults = {path: Fault(login="another", headers=challenge) for path in server.files}
        hosted.environ["DIB_REPOLOCATION_amphora_agent"] = url.replace("/octavia", "/octavia/")
        for path in hosted.place.glob("cache/amphora-mkimage/locks/*"):
            path.unlink()
        error = hosted.fails()
        assert "sesame" not in "\n".join((error.what, error.remedy, *error.tail, hosted.log.getvalue().decode()))


def test_a_password_goes_to_no_other_host(hosted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server redirects, git asks again, and is not answered."""
    with running() as other:
        paths = [path for path in hosted.server.files if path.startswith("/octavia/")]
        for path in paths:
            hosted.server.faults[path] = Fault(location=f"{other.url}{path}")
            other.files[path] = hosted.server.files[path]
            other.faults[path] = Fault(login="nothing", headers={"WWW-Authenticate": 'Basic realm="x"'})
        hosted.environ["DIB_REPOLOCATION_amphora_agent"] = (
            hosted.server.url.replace("//", "//user:sesame@") + "/octavia"
        )
        hosted.fails()
        assert other.seen
        assert not [seen for seen in other.seen if "authorization" in seen.headers]


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("19.0.0-0-gabc", "19.0.0"),
        ("19.0.0-12-gabc", "19.0.1.dev12"),
        ("19.0.0.0rc1-3-gabc", "19.0.0.0rc2.dev3"),
        ("19.0.0.0b1-0-gabc", "19.0.0.0b1"),
        ("2.1-4-gabc", "2.1.1.dev4"),
        ("", "0.0.0"),
        ("v-x-1-gabc", "0.0.0"),
    ],
)
def test_versions(described: str, version: str) -> None:
    assert git.version(described) == version
