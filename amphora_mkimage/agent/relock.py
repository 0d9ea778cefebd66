"""Make the lock file: ``python -m amphora_mkimage.agent.relock --constraints upper-constraints.txt 19.0.0``.

It needs uv(1), which resolves for Pythons that are not here, and downloads every file once to hash it. The constraints
are OpenStack's for the release of octavia; a package that they do not name gets its newest version.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.agent.download import download
from amphora_mkimage.agent.lock import INSTALLER, LOCK, PYTHONS, WITHOUT_WHEEL, Package
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError

_ARCHITECTURES = ("amd64", "arm64")
#: octavia's wheel forgets pyroute2, which its source distribution asks for (seen in 19.0.0).
_BESIDES = ("pyroute2", INSTALLER)
_HEADER = """\
# The amphora agent: octavia {version} and all that it needs, for Python {pythons} on {architectures}.
# Made by python -m amphora_mkimage.agent.relock; do not edit.
"""


def main() -> int:
    """Write the lock file."""
    parser = argparse.ArgumentParser(prog="python -m amphora_mkimage.agent.relock", description=__doc__)
    parser.add_argument("version", help="of octavia")
    parser.add_argument("--constraints", type=Path, required=True, help="OpenStack's upper-constraints.txt")
    arguments = parser.parse_args()
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as name:
            files = _collect(arguments.version, arguments.constraints, Path(name), console)
    except MkimageError as error:
        print(error.what, *error.tail, sep="\n", file=sys.stderr)  # noqa: T201 (a command of its own)
        return int(error.status)
    header = _HEADER.format(
        version=arguments.version, pythons=", ".join(PYTHONS), architectures=", ".join(_ARCHITECTURES)
    )
    lines = [f"{package.sha256}  {package.file}\n" for package in files]
    LOCK.write_text(header + "".join(lines), encoding="ascii")
    return 0


def _collect(version: str, constraints: Path, place: Path, console: Console) -> list[Package]:
    """Resolve for each Python, download for each machine, hash."""
    # The constraints name octavia too, at the version before.
    kept = [line for line in constraints.read_text().splitlines() if not line.lower().startswith("octavia=")]
    (place / "constraints.txt").write_text("".join(f"{line}\n" for line in kept))
    (place / "wanted.in").write_text("".join(f"{line}\n" for line in (f"octavia=={version}", *_BESIDES)))
    pins = sorted({pin for python in PYTHONS for pin in _resolve(python, place, console)})
    sources = [pin for pin in pins if pin.partition("==")[0] in WITHOUT_WHEEL]
    wheels = [pin for pin in pins if pin not in sources]
    files = place / "files"
    files.mkdir()
    for arch in _ARCHITECTURES:
        for python in PYTHONS:
            with console.step(f"Python {python} on {arch}"):
                download(wheels, files, python, arch, console, source=False, hashes=False)
    download(sources, files, PYTHONS[0], _ARCHITECTURES[0], console, source=True, hashes=False)
    (files / "requirements.txt").unlink()
    found = [Package(hashlib.sha256(path.read_bytes()).hexdigest(), path.name) for path in files.iterdir()]
    return sorted(found, key=lambda package: (package.name, package.file))


def _resolve(python: str, place: Path, console: Console) -> list[str]:
    argv = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", f"--python-version={python}"]
    argv += ["--python-platform=x86_64-manylinux_2_28", "--only-binary=:all:"]
    argv += [f"--no-binary={name}" for name in sorted(WITHOUT_WHEEL)]
    argv += [f"--constraints={place / 'constraints.txt'}", str(place / "wanted.in")]
    text = process.run(argv, console, what=f"cannot resolve for Python {python}", remedy="install uv")
    return [line for line in text.splitlines() if re.fullmatch(r"[a-z0-9.-]+==\S+", line)]


if __name__ == "__main__":
    sys.exit(main())
