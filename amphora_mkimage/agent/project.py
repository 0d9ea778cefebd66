"""Read what a Python project says of itself from its files; none of its code is run.

Wheels and current source distributions have it in their metadata ("Core metadata specifications", PyPA). A checkout has
what its build tools will make metadata from: pyproject.toml, setup.cfg, and requirements.txt, which pbr reads.
"""

from __future__ import annotations

import configparser
import email.parser
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from amphora_mkimage.errors import MkimageError

#: Files that a compiler would have to turn into something.
_NATIVE = (".c", ".cc", ".cpp", ".cxx", ".pyx", ".rs", ".f", ".f90", ".go")
#: Bytes of one such file.
_LIMIT = 4 << 20


@dataclass(frozen=True)
class Project:
    """What a project asks for.

    :param python: versions of Python that it is for
    :param requires: what it needs to run
    :param builds: what it needs to be built, of a source
    :param native: a file that needs a compiler, of a source; "" when there is none
    """

    name: str
    python: SpecifierSet = field(default_factory=SpecifierSet)
    requires: Sequence[Requirement] = ()
    builds: Sequence[Requirement] = ()
    native: str = ""


def canonical(name: str) -> str:
    """Normalise a project's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_wheel(path: Path) -> Project:
    """Read a wheel.

    :raises MkimageError: it is none
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            text = archive.read(names[0]).decode() if len(names) == 1 else ""
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise MkimageError(f"{path.name} from the package index is not a wheel: {error}") from error
    if not text:
        raise MkimageError(f"{path.name} from the package index has no metadata")
    return _of_metadata(text, path.name)


def read_source(path: Path) -> Project:
    """Read a source distribution.

    :raises MkimageError: it is none
    """
    try:
        names, texts = _of_zip(path) if path.suffix == ".zip" else _of_tar(path)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        what = f"{path.name} from the package index is not a source distribution"
        raise MkimageError(what, tail=str(error).splitlines()) from error
    native = next((name for name in sorted(names) if name.endswith(_NATIVE) and "test" not in name), "")
    described = _of_metadata(texts.get("PKG-INFO", ""), path.name)
    requires = list(described.requires)
    if not requires:
        lists = [text for name, text in texts.items() if name.endswith(".egg-info/requires.txt")]
        requires = _requires_txt(lists[0], path.name) if lists else []
    return Project(described.name, described.python, requires, _builds(texts, path.name), native)


def read_checkout(archive: Path, project: str) -> Project:
    """Read the files of a commit.

    :param archive: tar of them
    :param project: what it is called in messages
    :raises MkimageError: they cannot be read, or have no name
    """
    with tarfile.open(archive) as files:
        members = {member.name: member for member in files if member.isfile() and "/" not in member.name}
        wanted: tuple[str, ...] = ("pyproject.toml", "setup.cfg", "requirements.txt")
        texts = {name: _text(files, members[name]) for name in wanted if name in members}
    table = _pyproject(texts, project).get("project", {})
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read_string(texts.get("setup.cfg", ""))
    except configparser.Error as error:
        raise MkimageError(f"setup.cfg of {project} cannot be read: {error}".splitlines()[0]) from error
    name = table.get("name") or config.get("metadata", "name", fallback="")
    if not name:
        raise MkimageError(f"this is not a checkout of {project}: neither pyproject.toml nor setup.cfg names a project")
    old = [config.get(section, key, fallback="") for section in ("options", "metadata") for key in _PYTHON_KEYS]
    python = table.get("requires-python") or next(filter(None, old), "")
    lines = [*table.get("dependencies", ()), *config.get("options", "install_requires", fallback="").splitlines()]
    lines += texts.get("requirements.txt", "").splitlines() if "dependencies" not in table else []
    return Project(name, _specifiers(python, project), requirements(lines, project), _builds(texts, project))


_PYTHON_KEYS = ("python_requires", "python-requires", "requires-python")


def requirements(lines: Sequence[str], source: str) -> list[Requirement]:
    """Read lines of a requirements file.

    :param source: where they are from, for messages
    :raises MkimageError: one is not a requirement
    """
    found = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text and not text.startswith("-"):
            try:
                found.append(Requirement(text))
            except InvalidRequirement as error:
                raise MkimageError(f"{source} has a line that is not a requirement: {text[:80]!r}") from error
    return found


def _of_metadata(text: str, source: str) -> Project:
    fields = email.parser.HeaderParser().parsestr(text)
    requires = requirements([str(value) for value in fields.get_all("Requires-Dist", [])], source)
    return Project(str(fields.get("Name", "")), _specifiers(str(fields.get("Requires-Python") or ""), source), requires)


def _specifiers(text: str, source: str) -> SpecifierSet:
    try:
        return SpecifierSet(text.strip())
    except InvalidSpecifier as error:
        raise MkimageError(f"{source} asks for an unreadable version of Python: {text[:80]!r}") from error


def _requires_txt(text: str, source: str) -> list[Requirement]:
    """Read setuptools' own list: sections are extras and markers."""
    lines, condition = [], ""
    for line in text.splitlines():
        section = re.fullmatch(r"\[([^:\]]*)(?::(.*))?\]", line.strip())
        if section:
            extra = f"extra == '{section[1]}'" if section[1] else ""
            condition = " and ".join(part for part in (extra, f"({section[2]})" if section[2] else "") if part)
        elif line.strip():
            lines.append(f"{line.strip()} ; {condition}" if condition else line)
    return requirements(lines, source)


def _builds(texts: Mapping[str, str], source: str) -> list[Requirement]:
    table = _pyproject(texts, source).get("build-system", {})
    return requirements(table.get("requires", ()), source)


def _pyproject(texts: Mapping[str, str], source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(texts.get("pyproject.toml", ""))
    except tomllib.TOMLDecodeError as error:
        raise MkimageError(f"pyproject.toml of {source} cannot be read: {error}") from error


def _of_tar(path: Path) -> tuple[list[str], dict[str, str]]:
    """Give the names in a source distribution, without its top directory, and the texts that tell about it."""
    with tarfile.open(path) as archive:
        files = {member.name.partition("/")[2]: member for member in archive if member.isfile()}
        return list(files), {name: _text(archive, member) for name, member in files.items() if _is_metadata(name)}


def _of_zip(path: Path) -> tuple[list[str], dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist() if not name.endswith("/")}
        texts = {}
        for name, member in files.items():
            if _is_metadata(name):
                with archive.open(member) as file:
                    texts[name] = file.read(_LIMIT).decode(errors="replace")
        return list(files), texts


def _is_metadata(name: str) -> bool:
    return name in ("PKG-INFO", "pyproject.toml") or bool(re.fullmatch(r"[^/]+\.egg-info/requires\.txt", name))


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return "" if file is None else file.read(_LIMIT).decode(errors="replace")
