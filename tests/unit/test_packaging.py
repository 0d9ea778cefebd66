"""What pyproject.toml says of the package: an installed one has every file that a checkout has."""

from __future__ import annotations

import glob
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]


def files(directory: Path) -> set[Path]:
    """All files below a directory, also through the links to stages/ and package_lists/, without byte code."""
    # Path.glob does not go through links.
    found = glob.glob("**/*", root_dir=directory, recursive=True, include_hidden=True)  # noqa: PTH207
    paths = {directory / name for name in found if "__pycache__" not in name}
    return {path for path in paths if path.is_file()}


def test_every_module_is_in_a_package_that_is_installed() -> None:
    packages = {path.parent for path in files(REPOSITORY / "amphora_mkimage") if path.name == "__init__.py"}
    assert {".".join(path.relative_to(REPOSITORY).parts) for path in packages} == set(SETUPTOOLS["packages"])


def test_every_file_is_installed() -> None:
    (patterns,) = SETUPTOOLS["package-data"].values()
    installed = set()
    for package in SETUPTOOLS["packages"]:
        directory = REPOSITORY.joinpath(*package.split("."))
        installed |= set(directory.glob("*.py"))
        for pattern in patterns:
            names = glob.glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 (as above)
            installed |= {directory / name for name in names}
    assert not files(REPOSITORY / "amphora_mkimage") - installed
