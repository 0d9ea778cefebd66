"""Measure the way of a tree out of a qcow2: our tar on an attached disk against ``virt-tar-out -a``, side by side.

Run it on an idle machine; it writes ``benchmarks/disk_out.md``. The image has 1 GB in 20,000 files. Each side's time
includes its launch of the appliance, and both end with a tar of the whole tree on this host.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from amphora_mkimage import accelerator, process, unpack
from amphora_mkimage.console import Console

HERE = Path(__file__).parent
FILES = 20_000
DIRECTORIES = 1_000


def make_image(directory: Path, size: int) -> Path:
    """Make a qcow2 of a bare ext4 with so many bytes in files of all sizes."""
    tree, raw, image = directory / "tree", directory / "disk.raw", directory / "disk.qcow2"
    chosen = random.Random(1)  # noqa: S311 (the same image each time)
    for name in ("etc", "bin", "usr"):
        (tree / name).mkdir(parents=True)
    # What virt-tar-out recognises a system by.
    (tree / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n', encoding="ascii")
    (tree / "etc/debian_version").write_text("12.0\n", encoding="ascii")
    (tree / "etc/fstab").touch()
    for number in range(DIRECTORIES):
        (tree / f"usr/{number}").mkdir()
    for number in range(FILES):
        # Most files of a system are small and a few are large.
        length = min(int(chosen.paretovariate(1.1) * size / FILES / 8), size // 50)
        (tree / f"usr/{number % DIRECTORIES}/{number}").write_bytes(chosen.randbytes(length))
    used = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    if used < size:
        (tree / "usr/rest").write_bytes(chosen.randbytes(size - used))
    environment = process.environment()
    options = "lazy_itable_init=0,root_owner=0:0"
    argv = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-E",
        options,
        "-d",
        str(tree),
        str(raw),
        f"{2 * max(size, used) >> 10}k",
    ]
    subprocess.run(argv, check=True, env=environment)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True, env=environment)
    shutil.rmtree(tree)
    raw.unlink()
    return image


def attached_disk(image: Path, target: Path) -> None:
    """Ours."""
    unpack.disk(image, unpack.Kind.QCOW2, target, unpack.Limits(), Console(io.StringIO()))


def virt_tar_out(image: Path, target: Path) -> None:
    """Run libguestfs' own, which also finds the system and mounts it."""
    variables = accelerator.prepare_libguestfs(accelerator.choose(Console(io.StringIO())))
    argv = ["virt-tar-out", "-a", str(image), "/", str(target)]
    subprocess.run(argv, check=True, env=process.environment(variables), stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each side (default: 1)")
    parser.add_argument("--megabytes", type=int, default=1000, help="of files in the image (default: 1000)")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"attached disk": [], "virt-tar-out": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as name:
        image, target = make_image(Path(name), arguments.megabytes * 1_000_000), Path(name) / "out.tar"
        size = image.stat().st_size
        for number in range(arguments.rounds):
            for side, function in zip(seconds, (attached_disk, virt_tar_out), strict=True):
                begin = time.monotonic()
                function(image, target)
                seconds[side].append(time.monotonic() - begin)
                print(
                    f"round {number + 1}: {side} {seconds[side][-1]:.0f} s, {target.stat().st_size / 1e6:.0f} MB of tar"
                )
                target.unlink()
    ours, theirs = (statistics.median(measured) for measured in seconds.values())
    chosen = accelerator.choose(Console(io.StringIO()))
    head = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, Linux {platform.release()}, {chosen}."
    rows = [
        f"| tar on an attached disk (median of {arguments.rounds}) | {ours:.0f} s |",
        f"| virt-tar-out (median of {arguments.rounds}) | {theirs:.0f} s |",
        f"| **ratio** | **{ours / theirs:.2f}** |",
    ]
    text = f"# Tree out of a qcow2 of {size / 1e6:.0f} MB, {FILES} files\n\n{head}\n\n| what | measured |\n|---|---|\n"
    text += "\n".join([*rows, ""])
    (HERE / "disk_out.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
