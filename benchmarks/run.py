"""Measure the whole build against plain mmdebstrap with exactly the same packages, side by side, medians of three.

Run ``make benchmark`` on an idle machine; it writes ``benchmarks/results.md``. Both sides start with empty caches: each
downloads everything. ``--boot`` also measures the seconds from power-on to a running system.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from amphora_mkimage import plan, request, settings

HERE = Path(__file__).parent
MIB = 1 << 20


class Sampler:
    """Watch how much memory files in memory and processes take beyond the start, and how much the disk fills."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.shared = self.used = self.filled = 0

    def __enter__(self) -> Sampler:
        self._start = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            shared, available, free = self._now()
            self.shared = max(self.shared, shared - self._start[0])
            self.used = max(self.used, self._start[1] - available)
            self.filled = max(self.filled, self._start[2] - free)

    def _now(self) -> tuple[int, int, int]:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return memory["Shmem"], memory["MemAvailable"], shutil.disk_usage(self._disk).free


def ours(directory: Path, cache: Path) -> tuple[float, Sampler]:
    """Build the default qcow2; seconds, and what it took."""
    argv = [sys.executable, "-m", "amphora_mkimage", "-i", "debian-minimal", "--no-agent"]  # mmdebstrap has none
    argv += ["-c", str(cache), "-w", str(directory)]
    with Sampler(directory) as sampler:
        begin = time.monotonic()
        subprocess.run([*argv, "-o", str(directory / "ours")], check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - begin, sampler


def plain(directory: Path, work: plan.Plan, packages: list[str]) -> float:
    """Make a tar of the same packages with mmdebstrap and its defaults; seconds."""
    argv = ["mmdebstrap", "--variant=apt", f"--include={','.join(packages)}", work.request.release]
    begin = time.monotonic()
    subprocess.run(
        [*argv, str(directory / "plain.tar"), "-"],
        input=work.sources.encode(),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - begin


def boot(image: Path) -> list[str]:
    """Boot under BIOS and UEFI; rows of the table."""
    rows = []
    for firmware, flags in (("BIOS", []), ("UEFI", ["--uefi"])):
        argv = [sys.executable, "-m", "amphora_mkimage", "boot", str(image), "--json", *flags]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        rows.append(f"| power-on to running, {firmware} | {result['boot_seconds']:.0f} s |")
        if result["agent"]:
            rows.append(f"| power-on to an agent that answers, {firmware} | {result['agent']['seconds']:.0f} s |")
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--boot", action="store_true", help="also boot the image, under BIOS and UEFI")
    arguments = parser.parse_args()
    values = settings.resolve({"base_os": "debian-minimal"}, {})
    work = plan.make(request.make(values, {}, print))
    ours_seconds: list[float] = []
    plain_seconds: list[float] = []
    samplers: list[Sampler] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as name:
        directory = Path(name)
        for number in range(arguments.rounds):
            cache = directory / f"cache-{number}"
            seconds, sampler = ours(directory, cache)
            ours_seconds.append(seconds)
            samplers.append(sampler)
            manifest = json.loads((directory / "ours.qcow2.manifest.json").read_text(encoding="utf-8"))
            packages = [f"{package['name']}" for package in manifest["packages"]]
            plain_seconds.append(plain(directory, work, packages))
            shutil.rmtree(cache)
            print(f"round {number + 1}: ours {ours_seconds[-1]:.1f} s, plain mmdebstrap {plain_seconds[-1]:.1f} s")
        warm_cache = directory / "warm"
        ours(directory, warm_cache)
        warm = statistics.median(ours(directory, warm_cache)[0] for _ in range(arguments.rounds))
        cold, base = statistics.median(ours_seconds), statistics.median(plain_seconds)
        rows = [
            f"| ours, whole qcow2 build, empty cache (median of {arguments.rounds}) | {cold:.1f} s |",
            f"| plain mmdebstrap, tar of the same {len(packages)} packages | {base:.1f} s |",
            f"| **ratio** | **{cold / base:.2f}** |",
            f"| ours with a warm cache | {warm:.1f} s, {warm / base:.2f} of plain mmdebstrap |",
            f"| qcow2 | {(directory / 'ours.qcow2').stat().st_size / MIB:.0f} MiB |",
            f"| peak of files in memory (tree, packages, disk) | {max(s.shared for s in samplers) / MIB:.0f} MiB |",
            f"| peak of all memory | {max(s.used for s in samplers) / MIB:.0f} MiB |",
            f"| peak of disk (cache and output) | {max(s.filled for s in samplers) / MIB:.0f} MiB |",
        ]
        if arguments.boot:
            rows += boot(directory / "ours.qcow2")
    head = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, Linux {platform.release()}, -i debian-minimal"
    text = "\n".join([f"# Results\n\n{head}.\n", "| what | measured |", "|---|---|", *rows, ""])
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
