"""``amphora-mkimage verify IMAGE``: is this file a complete amphora?

The image is only ever read, and never trusted: an overlay of it is opened in libguestfs' appliance, a virtual machine
without network that is thrown away afterwards; nothing of the image is run, mounted or unpacked on this host. A tar is
read in place.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from amphora_mkimage import accelerator, streams
from amphora_mkimage.console import Console, columns
from amphora_mkimage.errors import BadValueError, ExitStatus
from amphora_mkimage.verify import checks, expectations, guest_disk, image_file
from amphora_mkimage.verify.appliance import DEADLINE_SECONDS, Appliance
from amphora_mkimage.verify.report import Report
from amphora_mkimage.verify.subject import Subject
from amphora_mkimage.verify.tar_tree import TarTree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.epilog = "Exit status: 0 complete, 1 not complete, 2 this host cannot look into images, 3 bad value."
    parser.add_argument("image", metavar="IMAGE", type=Path, help="qcow2, raw or vhd disk, or tar of a root filesystem")
    parser.add_argument("--manifest", metavar="FILE", type=Path, help="manifest (default: IMAGE.manifest.json, if any)")
    parser.add_argument("--size", metavar="GIB", help="virtual size that is expected (default: the manifest's)")
    parser.add_argument(
        "--root-password",
        choices=("set", "locked", "any"),
        help="what root's account should be (default: the manifest's, else locked)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--all", action="store_true", help="show also what is right")


def run(arguments: argparse.Namespace, console: Console) -> ExitStatus:
    """Verify an image and print the verdict on standard output.

    :raises HostError: this host cannot look into images
    :raises MkimageError: the file is not an image
    """
    report = verify(
        arguments.image,
        console,
        manifest=arguments.manifest,
        size_gib=_size(arguments.size),
        root_password=arguments.root_password,
    )
    width = columns(sys.stdout) if sys.stdout.isatty() else None
    streams.result(report.json() if arguments.json else report.text(everything=arguments.all, width=width))
    return ExitStatus.OK if report.complete else ExitStatus.FAILED


def verify(
    path: Path,
    console: Console,
    *,
    manifest: Path | None = None,
    size_gib: int | None = None,
    root_password: str | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> Report:
    """Run all checks on an image.

    :param manifest: see :func:`amphora_mkimage.verify.expectations.load`, as the two that follow
    :param deadline: seconds that the appliance may take for all
    """
    begin = time.monotonic()
    image = image_file.identify(path, console)
    expected = expectations.load(path, manifest, size_gib, root_password)
    with contextlib.ExitStack() as stack:
        disk, archive = None, None
        if not image.is_disk:
            with console.step("Reading the archive"):
                archive = stack.enter_context(contextlib.closing(TarTree(path)))
        elif not image.refusal:
            chosen = accelerator.choose(console)
            appliance = stack.enter_context(Appliance(path, image.qemu_format, chosen, console, deadline))
            disk = guest_disk.examine(appliance, image.virtual_size, console)
        subject = Subject(image, expected, disk=disk, archive=archive)
        with console.step("Checking the amphora"):
            outcomes = checks.run_all(subject)
        system = subject.os_release.get("PRETTY_NAME", "") if subject.root else ""
    return Report(image, outcomes, system, time.monotonic() - begin)


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii() or int(text) == 0:
        raise BadValueError(f"--size: {text!r} is not a size", "give a whole number of GiB, at least 1")
    return int(text)
