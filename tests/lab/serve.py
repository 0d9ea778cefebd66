"""An HTTP server on loopback with the layout of the real sites: directory listings, ranges, real names."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import re
import shutil
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rpm_repository import Repository

#: What the fixture redhat_upstream gives: serve a distribution by its id.
Upstream = Callable[..., "Site"]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them (RFC 9110, 14.2: a single range with a start)."""

    server: _Server
    _left: int | None = None

    def log_message(self, *arguments: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Remember what was asked for, and answer; as a proxy for every host where a whole URL is asked for."""
        self.server.requested.append(self.path)
        if self.path.startswith("http://"):
            self.path = urlsplit(self.path).path
        super().do_GET()

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]
        """Answer a request for the rest of a file with the rest of it, all others as the base class does."""
        self._left = None
        path = Path(self.translate_path(self.path))
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or not path.is_file():
            return super().send_head()  # type: ignore[return-value]
        size = path.stat().st_size
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if start > end:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(os.fspath(path)))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        file = path.open("rb")
        file.seek(start)
        self._left = end - start + 1
        return file

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        """Send the file, or as much of it as was asked for."""
        if self._left is None:
            shutil.copyfileobj(source, outputfile)
            return
        while self._left and (chunk := source.read(min(self._left, 1 << 20))):
            outputfile.write(chunk)
            self._left -= len(chunk)


class _Server(http.server.ThreadingHTTPServer):
    requested: list[str]


class Site:
    """A directory that is served on loopback; a context manager.

    :param root: the directory
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=os.fspath(root)))
        self._server.requested = []
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requested(self) -> list[str]:
        """Paths that were asked for, in order."""
        return self._server.requested

    def __enter__(self) -> Site:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def add_repositories(root: Path, repository: Repository) -> None:
    """Put a distribution's package repositories where its mirrors have them."""
    for name, path in repository.distribution.repositories.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(repository.directory / name)


def add_image(root: Path, repository: Repository, image: Path) -> None:
    """Put a cloud image and its checksum where, and under the name that, the distribution publishes them.

    The formats are those of the real files: BSD's, with the size in a comment. Fedora's is signed in clear, Rocky's has
    a signature beside it, CentOS' has none.

    The public key is at the top, in a keyring named after the distribution.
    """
    distribution = repository.distribution
    place = root / distribution.image
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(image)
    text = checksum_text(image, place.name)
    checksum = root / distribution.checksum
    repository.key.gpg("--output", root / f"{distribution.id}.gpg", "--export")
    if distribution.signed == "clear":
        repository.key.clearsign(text, checksum)
        return
    suffix = {"centos": "SHA256SUM", "rocky": "CHECKSUM"}[distribution.id]
    for file in (checksum, place.with_name(f"{place.name}.{suffix}")):
        file.write_text(text, encoding="utf-8")
    if distribution.signed == "detached":
        signature = checksum.with_name(f"{checksum.name}.asc")
        repository.key.gpg("--armor", "--output", signature, "--detach-sign", checksum)


def checksum_text(file: Path, name: str) -> str:
    """Give the checksum line of a file as these distributions write it."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f"# {name}: {file.stat().st_size} bytes\nSHA256 ({name}) = {digest}\n"
