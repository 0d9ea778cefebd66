"""What the real builds share."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import ubuntu
from public import PYTHON, public_root
from static_server import serving

SeedCache = Callable[..., Path]


@pytest.fixture
def seed_cache(built: object, cache_dir: Path, tmp_path: Path) -> SeedCache:
    """Make a cache of one's own with the packages that the first build fetched, and on demand its base too."""

    def seed(place: Path | None = None, *, bases: bool = False, owner: tuple[int, int] | None = None) -> Path:
        place = place or tmp_path / "cache"
        for part in ("debs", "bases") if bases else ("debs",):
            target = place / "amphora-mkimage" / part
            target.mkdir(parents=True)
            for file in (cache_dir / "amphora-mkimage" / part).iterdir():
                if not file.name.startswith(".partial-"):
                    shutil.copy2(file, target)
        if owner is not None:
            for path in (place, *place.rglob("*")):
                os.chown(path, *owner)
        return place

    return seed


@dataclass(frozen=True)
class Served:
    """A lab on loopback, and what points the tool to it."""

    lab: ubuntu.UbuntuLab
    environment: dict[str, str]


@pytest.fixture(scope="session")
def ubuntu_lab(cache_dir: Path) -> Iterator[Served]:
    """Ubuntu's upstreams, made of Debian's packages."""
    lab = ubuntu.make(cache_dir / "lab")
    with serving(lab.root) as url:
        yield Served(lab, lab.environment(url))


@pytest.fixture
def user() -> Iterator[pwd.struct_passwd]:
    """A freshly made user with a home and a subordinate range, and without any privilege."""
    name = f"amphora-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--create-home", "--base-dir", "/tmp", name], check=True, capture_output=True)
    try:
        if not any(line.startswith(f"{name}:") for line in Path("/etc/subuid").read_text().splitlines()):
            ranges = ["--add-subuids", "700000-765535", "--add-subgids", "700000-765535"]
            subprocess.run(["usermod", *ranges, name], check=True)
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture
def run_cli_as(tmp_path: Path):
    def run(
        user: pwd.struct_passwd, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        network = {name: value for name, value in os.environ.items() if "proxy" in name.lower() or "CA_" in name}
        ours = {"HOME": user.pw_dir, "USER": user.pw_name, "PYTHONPATH": str(public_root())}
        return subprocess.run(
            [PYTHON, "-m", "amphora_mkimage", *arguments],
            # sbin is left out, as Debian leaves it out of an ordinary user's PATH.
            env={**network, **ours, "PATH": "/usr/local/bin:/usr/bin:/bin", **(env or {})},
            cwd=cwd,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            umask=0o077,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run
