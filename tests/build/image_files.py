"""What is in the files of a build."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path


def info(path: Path, kind: str) -> dict[str, object]:
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", kind, path], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def tar_members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def tar_file(path: Path, name: str) -> str:
    with tarfile.open(path) as tar:
        file = tar.extractfile(f"./{name}")
        assert file is not None
        return file.read().decode()


def root_field(path: Path) -> str:
    (line,) = (line for line in tar_file(path, "etc/shadow").splitlines() if line.startswith("root:"))
    return line.split(":")[1]
