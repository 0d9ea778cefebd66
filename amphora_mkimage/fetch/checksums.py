"""Files of checksums, as sha256sum(1) and its relatives write them: read strictly, or not at all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from amphora_mkimage.errors import MkimageError

#: Hexadecimal digits of a digest. MD5 and SHA-1 are not here, and so are never accepted (RFC 6151, RFC 6194).
LENGTHS = {"sha256": 64, "sha512": 128}

_GNU = re.compile(r"([0-9A-Fa-f]*) [ *](.+)")
_BSD = re.compile(r"([A-Za-z0-9/-]+) \((.+)\) = ?(.*)")
_LONGEST_NAME = 255  # NAME_MAX
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """What a file's content must hash to, in small letters."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def matches(self, path: Path) -> bool:
        """Read a whole file and compare.

        :raises OSError: it cannot be read
        """
        with path.open("rb") as file:
            return digest_of(file, self.algorithm) == self


def digest_of(file: BinaryIO, algorithm: str) -> Digest:
    """Hash a file from its current position to its end."""
    found = hashlib.new(algorithm)
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    return Digest(algorithm, found.hexdigest())


def parse_digest(text: str) -> Digest | None:
    """Read ``sha256:HEX`` or ``sha256=HEX``; None when it is anything else, an empty digest too."""
    algorithm, _, hexadecimal = text.replace("=", ":", 1).partition(":")
    return Digest(algorithm, hexadecimal.lower()) if _is_digest(algorithm, hexadecimal) else None


class Checksums:
    """The checksums in one file, by exact file name.

    GNU lines (``HEX  NAME``, ``HEX *NAME``) and BSD lines (``SHA256 (NAME) = HEX``) are read; comments are passed over.
    A name whose line cannot be used is remembered as such: it is an error only for who asks for that name.

    :param text: the content, of which nothing may be trusted more than its source
    :param algorithm: the one that is wanted
    :param source: what messages call the file
    """

    def __init__(self, text: str, algorithm: str, source: str) -> None:
        self._algorithm = algorithm
        self._source = source
        self._digests: dict[str, set[str]] = {}
        # Not splitlines(): that also splits at characters that may be part of a name.
        for line in text.split("\n"):
            self._read(line.removesuffix("\r"))

    def digest(self, name: str) -> Digest:
        """Give the digest of a file.

        :raises MkimageError: there is none, no usable one, or more than one
        """
        found = self._digests.get(name)
        if found is None:
            self._fail(f"has no checksum for {name}")
        if not found:
            self._fail(f"has no usable {self._algorithm} checksum for {name}")
        if len(found) > 1:
            self._fail(f"has different checksums for {name}")
        return Digest(self._algorithm, next(iter(found)))

    def newest(self, pattern: str) -> str:
        """Give the name that matches a pattern as a whole and has the highest numbers in it.

        :raises MkimageError: none matches
        """
        names = [name for name in self._digests if re.fullmatch(pattern, name)]
        if not names:
            self._fail("names no file that is wanted here")
        return max(names, key=numbers)

    def _read(self, line: str) -> None:
        if line.startswith("#"):
            return
        if match := _BSD.fullmatch(line):
            algorithm, name, hexadecimal = match.groups()
            usable = algorithm.lower() == self._algorithm and _is_digest(self._algorithm, hexadecimal)
        elif match := _GNU.fullmatch(line):
            hexadecimal, name = match.groups()
            usable = _is_digest(self._algorithm, hexadecimal)
        else:
            return
        if len(name) > _LONGEST_NAME:
            return
        digests = self._digests.setdefault(name, set())
        if usable:
            digests.add(hexadecimal.lower())

    def _fail(self, problem: str) -> NoReturn:
        if not self._digests:
            # CentOS has published empty ones for Stream 10, as comments in diskimage-builder's CI tell.
            raise MkimageError(
                f"{self._source} has no checksums at all: it is empty, or something else",
                "the publisher or the mirror is at fault: try later, or another mirror",
            )
        raise MkimageError(f"{self._source} {problem}", "check the release and the architecture, or try another mirror")


def numbers(name: str) -> list[int]:
    """Give the numbers in a name, by which versions and dates of one naming scheme sort."""
    return [int(digits) for digits in re.findall(r"[0-9]+", name)]


def _is_digest(algorithm: str, text: str) -> bool:
    length = LENGTHS.get(algorithm)
    return length is not None and re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", text) is not None
