"""The program for other users: a checkout may lie where only its owner may look, and tox keeps .tox to itself."""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The interpreter itself, without the virtual environment around it.
PYTHON = str(Path(sys.executable).resolve())


@functools.cache
def public_root() -> Path:
    """Give a copy of the package that every user may read, removed at the end; for PYTHONPATH."""
    directory = Path(tempfile.mkdtemp(prefix="amphora-mkimage-public-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "amphora_mkimage", directory / "amphora_mkimage", ignore=ignore)  # follows the two links
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return directory
