"""A package index (PEP 503) on loopback with small real packages, and git repositories beside it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer

from amphora_mkimage.agent.lock import Package

HTML = {"Content-Type": "text/html"}


def isolate_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip know nothing of this host's indexes, proxies and authorities, and not try twice."""
    for name in os.environ:
        if name.startswith("PIP_") or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def wheel(file: str, requires: Sequence[str] = (), python: str = "") -> bytes:
    """A wheel with metadata and nothing useful."""
    name, version, tags = file.removesuffix(".whl").split("-", 2)
    info = f"{name}-{version}.dist-info"
    fields = [f"Requires-Dist: {line}\n" for line in requires] + ([f"Requires-Python: {python}\n"] if python else [])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{name}.py", "# nothing\n" * 5000)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{''.join(fields)}"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


def source(file: str, setup: str, more: Mapping[str, str] | None = None) -> bytes:
    """A source distribution, as .tar.gz or .zip."""
    top = file.removesuffix(".tar.gz").removesuffix(".zip")
    name, version = top.rsplit("-", 1)
    files = {"PKG-INFO": f"Metadata-Version: 1.1\nName: {name}\nVersion: {version}\n", "setup.py": setup}
    content = io.BytesIO()
    if file.endswith(".zip"):
        with zipfile.ZipFile(content, "w") as zipped:
            for path, text in (files | dict(more or {})).items():
                zipped.writestr(f"{top}/{path}", text)
        return content.getvalue()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in (files | dict(more or {})).items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def add(server: FaultServer, file: str, content: bytes, told: str = "") -> Package:
    """Put a file into the index.

    :param told: the SHA256 that its link tells; none by default
    """
    package = Package(hashlib.sha256(content).hexdigest(), file)
    server.files[f"/files/{file}"] = content
    page = f"/simple/{package.name}/"
    fragment = f"#sha256={told}" if told else ""
    link = f'<a href="/files/{file}{fragment}">{file}</a>\n'
    server.files[page] = server.files.get(page, b"") + link.encode()
    server.faults[page] = Fault(headers=HTML)
    return package


def commit(repository: Path, files: Mapping[str, str], *, branch: str = "", tag: str = "") -> str:
    """Commit files, in a repository that is made where there is none; gives the commit's id.

    :param branch: to be on from now on
    :param tag: to set on the commit
    """
    if not repository.exists():
        git(repository.parent, "init", "--quiet", "--initial-branch=master", str(repository))
    if branch:
        git(repository, "checkout", "--quiet", "-B", branch)
    for path, text in files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=x")
    if tag:
        git(repository, "tag", "--annotate", "--message=x", tag)
    return git(repository, "rev-parse", "HEAD").strip()


def serve_repository(server: FaultServer, repository: Path, top: str) -> str:
    """Serve a repository over what git calls the dumb protocol (gitprotocol-http(5)); gives its URL."""
    git(repository, "update-server-info")
    for path in (repository / ".git").rglob("*"):
        if path.is_file():
            server.files[f"{top}/{path.relative_to(repository / '.git')}"] = path.read_bytes()
    return f"{server.url}{top}"


def git(place: Path, *words: str) -> str:
    """Run git as somebody with a name; what it printed."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    argv = ["git", *identity, "-c", "tag.gpgsign=false", *words]
    return subprocess.run(argv, cwd=place, check=True, capture_output=True, text=True).stdout
