"""Measure how long a build with a warm cache takes until it changes the first thing in the tree, side by side.

It writes ``benchmarks/first_customisation.md``. One side bootstraps (``debian-minimal``, from the host's archive), the
other starts from a published root filesystem (``ubuntu``, from the stand-in of the tests). Until the first
customisation both read the archive's indexes, resolve, and unpack the base that they find in the cache. Run it on an
idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / name) for name in ("tests", "tests/lab")]

import ubuntu  # noqa: E402 (the stand-in of the tests is what can be reached everywhere)
from static_server import serving  # noqa: E402

CACHE = Path("~/.cache/image-create").expanduser()
#: The step that changes the first thing.
_FIRST = re.compile(r"^\[ *([0-9.]+)\] configure$", re.MULTILINE)


def build(base: str, environment: Mapping[str, str]) -> tuple[float, float]:
    """Build a tar without the agent; seconds until the first customisation, and in all."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as name:
        argv = [sys.executable, "-m", "amphora_mkimage", "-i", base, "--no-agent", "-t", "tar"]
        argv += ["-o", f"{name}/a", "-w", name, "-c", str(CACHE)]
        begin = time.monotonic()
        done = subprocess.run(argv, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, check=True)
        whole = time.monotonic() - begin
    found = _FIRST.search(done.stderr)
    assert found is not None, done.stderr
    return float(found[1]), whole


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    rounds = parser.parse_args().rounds
    lab = ubuntu.make(CACHE / "lab")
    with serving(lab.root) as url:
        bases: dict[str, Mapping[str, str]] = {"debian-minimal": {}, "ubuntu": lab.environment(url)}
        for base, environment in bases.items():
            build(base, environment)  # warms the cache
        measured: dict[str, list[tuple[float, float]]] = {base: [] for base in bases}
        for _ in range(rounds):
            for base, environment in bases.items():
                measured[base].append(build(base, environment))
    rows = [
        f"| `-i {base}` | {statistics.median(first for first, _ in results):.1f} s "
        f"| {statistics.median(whole for _, whole in results):.1f} s |"
        for base, results in measured.items()
    ]
    head = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs (load at the end {os.getloadavg()[0]:.1f}), "
        f"Linux {platform.release()}, medians of {rounds}, `--no-agent -t tar`"
    )
    table = ["| base | until the first customisation | whole build |", "|---|---|---|", *rows, ""]
    text = "\n".join([f"# From the start to the first customisation, with a warm cache\n\n{head}.\n", *table])
    (HERE / "first_customisation.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
