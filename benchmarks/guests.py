"""Measure the same small build in the namespace guest and in the appliance guest, side by side.

It writes ``benchmarks/guests.md``. Both start from the same base tar and the same packages on disk, and end with a raw
disk and a tar: what ``tests/build/test_guests.py`` compares. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests/build"))

import guest_builds  # noqa: E402 (the builds of the tests are the ones to measure)

from amphora_mkimage import accelerator, request, settings  # noqa: E402
from amphora_mkimage.console import Console  # noqa: E402

GUESTS = {"namespace": guest_builds.in_namespace, "appliance": guest_builds.in_appliance}


def measure(guest: str, wish: request.Request, material: guest_builds.Material) -> dict[str, float]:
    """Build once; seconds by step, and "whole"."""
    console = Console(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as name:
        begin = time.monotonic()
        GUESTS[guest](wish, material, Path(name), console)
        return {**console.timings, "whole": time.monotonic() - begin}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    rounds = parser.parse_args().rounds
    wish = request.make(settings.resolve({"base_os": "debian-minimal"}, {}), {}, print)
    console = Console()
    measured: dict[str, list[dict[str, float]]] = {guest: [] for guest in GUESTS}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as name:
        material = guest_builds.prepare(wish, Path(name), wish.cache_dir, console)
        for number in range(rounds):
            for guest, results in measured.items():
                results.append(measure(guest, wish, material))
                print(f"round {number + 1}: {guest} {results[-1]['whole']:.1f} s")
    rows = []
    for step in measured["appliance"][0]:
        seconds = [
            statistics.median(result.get(step, 0.0) for result in measured[guest])
            for guest in ("namespace", "appliance")
        ]
        ratio = f"{seconds[1] / seconds[0]:.1f}" if seconds[0] >= 0.1 else "-"
        rows.append(f"| {step} | {seconds[0]:.1f} s | {seconds[1]:.1f} s | {ratio} |")
    load = os.getloadavg()[0]
    head = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs (load at the end {load:.1f}), Linux {platform.release()}, "
        f"median of {rounds}; the appliance ran with {accelerator.choose(console)}"
    )
    table = ["| step | namespace | appliance | ratio |", "|---|---|---|---|", *rows, ""]
    text = "\n".join([f"# The same small build in either guest\n\n{head}.\n", *table])
    (HERE / "guests.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
