"""Measure our cold build against diskimage-builder with Octavia's elements: same release, same agent, same machine.

Run it as root on an idle machine; it writes ``benchmarks/against_dib.md``, and what ``verify`` says of the image that
diskimage-builder made to ``benchmarks/against_dib_verify.txt``. Ours always starts with an empty cache. Of
diskimage-builder the first build starts with one, too, and the others with what it left. How it is run, and what had to
be replaced on this host, stands in ``benchmarks/dib/diskimage_builder.py``.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "dib"))

import diskimage_builder as dib  # noqa: E402 (beside its shims)

from amphora_mkimage import accelerator, plan, request, settings  # noqa: E402
from amphora_mkimage.console import Console  # noqa: E402
from amphora_mkimage.verify import command as verify  # noqa: E402
from amphora_mkimage.verify import guest_disk  # noqa: E402
from amphora_mkimage.verify.appliance import Appliance  # noqa: E402
from amphora_mkimage.verify.report import Report  # noqa: E402

PLACE = Path("/var/tmp")  # noqa: S108 (a directory of its own in it, made by mkdtemp)
MIB = 1 << 20
MB = 1_000_000


@dataclass(frozen=True)
class Image:
    """What was built.

    :param size: bytes of the file
    :param content: bytes that the files in it take
    """

    size: int
    content: int
    report: Report

    @property
    def packages(self) -> str:
        """How many the package database knows."""
        (outcome,) = (outcome for outcome in self.report.outcomes if outcome.check.id == "packages.database")
        return outcome.findings[0].detail


def ours(directory: Path, release: str) -> tuple[Path, float]:
    """Build the default qcow2 with an empty cache; the image, and seconds."""
    output, cache = directory / "ours", directory / "our-cache"
    argv = [sys.executable, "-m", "amphora_mkimage", "-i", "debian-minimal", "-d", release, "-s", "2"]
    begin = time.monotonic()
    subprocess.run([*argv, "-c", cache, "-w", directory, "-o", output], check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    shutil.rmtree(cache)
    return output.with_suffix(".qcow2"), seconds


def examine(path: Path) -> Image:
    """Verify an image, and measure what is in it."""
    console = Console(io.StringIO())
    report = verify.verify(path, console)
    with Appliance(path, "qcow2", accelerator.choose(console), console) as appliance:
        guest_disk.examine(appliance, report.image.virtual_size, console)
        content = int(appliance.call("du", "/")) * 1024
    return Image(path.stat().st_size, content, report)


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--directory", type=Path, default=PLACE, help=f"where to work; 10 GB (default: {PLACE})")
    arguments = parser.parse_args()
    work = plan.make(request.make(settings.resolve({"base_os": "debian-minimal"}, {}), {}, print))
    directory = Path(tempfile.mkdtemp(prefix="against-dib-", dir=arguments.directory))
    print(f"working in {directory}")
    builder = dib.DiskimageBuilder(directory, work)
    mine: list[float] = []
    _, cold = builder.build("dib")
    print(f"diskimage-builder with empty caches {cold.seconds:.1f} s, {cold.cpu_seconds:.0f} CPU-s", flush=True)
    warm: list[dib.Build] = []
    for number in range(arguments.rounds):
        our_image, seconds = ours(directory, work.request.release)
        mine.append(seconds)
        image, build = builder.build("dib")
        warm.append(build)
        print(f"round {number + 1}: ours {seconds:.1f} s, diskimage-builder {build.seconds:.1f} s", flush=True)
    load = os.getloadavg()[0]
    images = [examine(our_image), examine(image)]
    text = table(mine, cold, warm, images, f"{work.request.release}, octavia {work.agent and work.agent.version}", load)
    text += shimmed(builder.shims)
    (HERE / "against_dib.md").write_text(text, encoding="utf-8")
    (HERE / "against_dib_verify.txt").write_text(images[1].report.text() + "\n", encoding="utf-8")
    print(text)
    shutil.rmtree(directory)


def table(
    mine: list[float], cold: dib.Build, warm: list[dib.Build], images: list[Image], what: str, load: float
) -> str:
    """Give the document's head and its table."""
    seconds, their_seconds = statistics.median(mine), statistics.median(build.seconds for build in warm)
    rows = [
        ("build, empty caches", f"{seconds:.1f} s", f"{cold.seconds:.1f} s (once)", seconds / cold.seconds),
        ("**ours empty, theirs warm caches**", f"{seconds:.1f} s", f"{their_seconds:.1f} s", seconds / their_seconds),
        ("compressed qcow2", *(f"{image.size / MIB:.0f} MiB" for image in images), images[0].size / images[1].size),
        ("files in it", *(f"{image.content / MB:.0f} MB" for image in images), images[0].content / images[1].content),
    ]
    lines = [f"| {name} | {one} | {other} | {ratio:.2f} |" for name, one, other, ratio in rows]
    lines.append(f"| packages | {images[0].packages} | {images[1].packages} | |")
    verdicts = ["complete" if image.report.complete else "not complete" for image in images]
    lines.append(f"| verify | {verdicts[0]} | {verdicts[1]} ([what it says](against_dib_verify.txt)) | |")
    head = (
        f"# A whole build beside diskimage-builder {dib.VERSION}\n\n{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs "
        f"(load at the end {load:.1f}), Linux {platform.release()}, medians of {len(mine)}; {what} on both sides, "
        f"`-s 2`.\n\n| what | ours | diskimage-builder | ratio |\n|---|---|---|---|\n"
    )
    return head + "\n".join(lines) + "\n"


def shimmed(shims: list[str]) -> str:
    """Say openly what was replaced on this host."""
    replaced = f"This host has no sudo or no device mapper: `dib/shims/` replaced {', '.join(shims)}"
    return (
        f"\n{replaced if shims else 'No tool of the host was replaced'}.\n"
        "What else differs from Octavia's CI stands in `dib/diskimage_builder.py`.\n"
    )


if __name__ == "__main__":
    main()
