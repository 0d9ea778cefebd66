"""The real agent and HAProxy of a built image, asked about configurations; what they refuse is told by its feature."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amphora_mkimage import request, settings
from amphora_mkimage.agent import configurations, install
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import NamespaceGuest

TEMPLATES = f"{install.VENV}/lib/python3.13/site-packages/octavia/common/jinja/haproxy/combined_listeners"
MACROS = f"{TEMPLATES}/templates/macros.j2"


@pytest.fixture(scope="module")
def tree(built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's tar, unpacked once."""
    place = tmp_path_factory.mktemp("tree")
    argv = ["tar", "-xpf", built.tar, "-C", place, "--exclude=./dev/*"]
    userns.run(lambda: subprocess.run(argv, check=True))
    yield place
    userns.run(lambda: subprocess.run(["find", place, "-mindepth", "1", "-delete"], check=True))


def ask(tree: Path, spoil: Callable[[NamespaceGuest], None]) -> Any:
    """Do something to the templates, ask, and put them right again."""
    wish = request.make(settings.resolve({"base_os": "debian-minimal"}, {}), {}, [].append)

    def run() -> Any:
        guest = NamespaceGuest(tree, Console(io.StringIO()))
        with guest.mounted():
            before, right = guest.find(install.VENV), guest.read_file(MACROS)
            spoil(guest)
            try:
                return configurations.check(wish, guest, Console(io.StringIO()))
            except MkimageError as error:
                return error
            finally:
                guest.write(MACROS, right)
                assert guest.find(install.VENV) == before  # no byte code of what only this step imports

    return userns.run(run)


def replace(guest: NamespaceGuest, old: str, new: str) -> None:
    text = guest.read_file(MACROS).decode()
    assert old in text
    guest.write(MACROS, text.replace(old, new).encode())


def test_the_image_takes_all_that_its_agent_writes(tree: Path) -> None:
    assert set(ask(tree, lambda guest: None)["features"].values()) == {"ok"}


def test_the_build_recorded_what_its_haproxy_said(built) -> None:
    record = json.loads(built.manifest.read_text())["agent"]["configurations"]
    assert set(record["features"].values()) == {"ok"}
    assert record["haproxy"].startswith("3.0.")


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        # Octavia 16 and older wrote monitors so.
        (
            "HTTP/{{ pool.health_monitor.http_version }}",
            "HTTP/{{ pool.health_monitor.http_version }}{{ '\\\\r\\\\n' | safe }}Host:\\ x",
            ["HTTP monitor of version 1.0", "HTTP monitor of version 1.1 with a domain name"],
        ),
        ("option external-check", "option no-such-option", ["PING monitor"]),
    ],
)
def test_what_haproxy_refuses_is_named(tree: Path, old: str, new: str, refused: list[str]) -> None:
    error = ask(tree, lambda guest: replace(guest, old, new))
    assert isinstance(error, MkimageError)
    assert [line.split(":")[0] for line in error.tail][: len(refused)] == refused


def test_templates_that_cannot_be_rendered_are_told(tree: Path) -> None:
    error = ask(tree, lambda guest: guest.rm_f(MACROS))
    assert isinstance(error, MkimageError)
    assert error.what == "the agent's templates cannot be rendered in the image"
    assert "macros.j2" in error.tail[-1]
