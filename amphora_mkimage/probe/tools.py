"""Do the programs that a build, a check and a boot start really run, with the options that they are given there?"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.agent.download import find_pip
from amphora_mkimage.bases import BASES, Base
from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, formats, layout
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.probe.outcome import Need, Outcome, Result
from amphora_mkimage.probe.trial import attempt

_DEADLINE = 60.0
_QEMU = "qemu-system-x86_64"


@dataclass(frozen=True)
class Tool:
    """A program of the host.

    :param name: how it is called
    :param package: the Debian package that brings it
    :param needed_for: what cannot be done without it
    :param use: uses it in an empty directory; raises MkimageError when it does not do its work
    :param too_old: what to do when it is there and fails
    :param only_for: all that cannot be done without it; everything, when empty
    """

    name: str
    package: str
    needed_for: tuple[Need, ...]
    use: Callable[[Path, Console], object]
    too_old: str = ""
    only_for: str = ""

    def probe(self, console: Console) -> Outcome:
        """Use it once."""
        outcome = self._try(console)
        if self.only_for and outcome.result is Result.MISSING:
            return Outcome(Result.LIMITED, f"{outcome.reason}: no {self.only_for}", outcome.remedy)
        return outcome

    def _try(self, console: Console) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
            try:
                attempt(lambda: self.use(Path(directory), console), _DEADLINE)
            except HostError as error:
                return Outcome(Result.MISSING, error.what.rpartition(": ")[2], f"install the package {self.package}")
            except BrokenPipeError:
                return Outcome(Result.MISSING, "it ended before it read its input", f"reinstall {self.package}")
            except MkimageError as error:
                evidence = f" ({error.tail[-1].strip()})" if error.tail else ""
                remedy = error.remedy if self.too_old == "" else self.too_old
                return Outcome(Result.MISSING, error.what + evidence, remedy or f"reinstall the package {self.package}")
        return Outcome(Result.OK, "works")


def _runs(*argv: str, stdin: bytes | None = None) -> Callable[[Path, Console], object]:
    """Make a use of a tool that is just to run it."""

    def use(_directory: Path, console: Console) -> None:
        process.run(argv, console, what="does not work", stdin=stdin)

    return use


def _tar(directory: Path, console: Console) -> None:
    target = os.open(directory / "out.tar", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        (directory / "tree").mkdir()
        formats.archive(directory / "tree", target, console)
    finally:
        os.close(target)


def _zstd(directory: Path, console: Console) -> None:
    file = directory / "file"
    file.write_bytes(b"text " * 1000)
    process.run(["zstd", "-q", "-1", "-T0", str(file)], console, what="does not work")


def _sfdisk(directory: Path, console: Console) -> None:
    layout.partition(directory / "disk.raw", 1, "amd64", console)  # a hole of 1 GiB


def _mke2fs(directory: Path, console: Console) -> None:
    (directory / "tree").mkdir()
    (directory / "tree/file").write_bytes(b"text")
    disk = _hole(directory / "disk.raw", 32)
    where = layout.Extent(layout.MIB, 24 * layout.MIB)
    filesystems.make_root(directory / "tree", disk, where, str(uuid.uuid4()), console)


def _vfat(directory: Path, console: Console) -> None:
    image = _hole(directory / "esp.img", 64)
    argv = ["mkfs.vfat", "-n", filesystems.ESP_LABEL, str(image)]
    process.run(argv, console, what="does not work")


def _mtools(*argv: str) -> Callable[[Path, Console], object]:
    """Make a use of one of the mtools on a floppy image that another of them makes."""

    def use(directory: Path, console: Console) -> None:
        (directory / "file").write_bytes(b"text")
        image = str(directory / "floppy.img")
        words = [word.format(image=image, directory=directory) for word in argv]
        for command in (["mformat", "-C", "-i", image, "-f", "1440", "::"], words):
            process.run(command, console, what="does not work")

    return use


def _qemu_img(directory: Path, console: Console) -> None:
    disk = _hole(directory / "disk.raw", 1)
    target = os.open(directory / "out.qcow2", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        formats.convert(disk, "qcow2", target, console)
    finally:
        os.close(target)


def _hole(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * layout.MIB)
    return path


_BUILD = (Need.BUILD,)
_BOOT = (Need.BOOT,)
#: -S: nothing is run; the monitor reads "quit" as soon as the machine with its user network is put together.
_QEMU_QUITS = [_QEMU, "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-S"]
_QEMU_QUITS += ["-netdev", "user,id=n", "-monitor", "stdio"]

TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", _BUILD, _runs("mmdebstrap", "--version")),
    Tool("apt-get", "apt", _BUILD, _runs("apt-get", "--version")),
    Tool("apt-cache", "apt", _BUILD, _runs("apt-cache", "--version")),
    Tool("dpkg-deb", "dpkg", _BUILD, _runs("dpkg-deb", "--version")),
    Tool("chroot", "coreutils", _BUILD, _runs("chroot", "--version")),
    Tool("tar", "tar", _BUILD, _tar, "use GNU tar 1.28 or newer"),
    Tool("zstd", "zstd", _BUILD, _zstd),
    Tool("xz", "xz-utils", _BUILD, _runs("xz", "--version"), only_for="base images that it compressed"),
    Tool("bzip2", "bzip2", _BUILD, _runs("bzip2", "--help"), only_for="base images that it compressed"),
    Tool("sqfs2tar", "squashfs-tools-ng", _BUILD, _runs("sqfs2tar", "--version"), only_for="base images in squashfs"),
    Tool("gpg", "gnupg", _BUILD, _runs("gpg", "--version"), only_for="base images that are signed"),
    Tool("git", "git", _BUILD, _runs("git", "--version"), only_for="agents of a branch (-g)"),
    Tool("sfdisk", "fdisk", _BUILD, _sfdisk, "use the sfdisk of util-linux 2.36 or newer"),
    Tool("mke2fs", "e2fsprogs", _BUILD, _mke2fs, "use e2fsprogs 1.47 or newer, which has assume_storage_prezeroed"),
    Tool("mkfs.vfat", "dosfstools", _BUILD, _vfat),
    Tool("mmd", "mtools", _BUILD, _mtools("mmd", "-i", "{image}", "::/EFI")),
    Tool("mcopy", "mtools", _BUILD, _mtools("mcopy", "-i", "{image}", "{directory}/file", "::/file")),
    Tool("qemu-img", "qemu-utils", tuple(Need), _qemu_img, "use QEMU 5.1 or newer, built with zstd"),
    Tool(
        _QEMU,
        "qemu-system-x86",
        (Need.VERIFY, Need.BOOT),
        _runs(*_QEMU_QUITS, stdin=b"quit\n"),
        "use QEMU 7.2 or newer, built with user networking (libslirp)",
    ),
    Tool("xorriso", "xorriso", _BOOT, _runs("xorriso", "-version")),
    Tool("openssl", "openssl", _BOOT, _runs("openssl", "version")),
)


def requests_module(_console: Console) -> Outcome:
    """Look for the module that fetches base images."""
    if importlib.util.find_spec("requests") is None:
        reason = "not installed: no base images from the network"
        return Outcome(Result.LIMITED, reason, "install the package python3-requests, or requests from PyPI")
    return Outcome(Result.OK, "there")


def packaging_module(_console: Console) -> Outcome:
    """Look for the module that reads what the packages of a branch ask for."""
    if importlib.util.find_spec("packaging") is None:
        reason = "not installed: no agents of a branch (-g)"
        return Outcome(Result.LIMITED, reason, "install the package python3-packaging, or packaging from PyPI")
    return Outcome(Result.OK, "there")


def pip(_console: Console) -> Outcome:
    """Look for what fetches the amphora agent."""
    try:
        found = find_pip()
    except HostError as error:
        return Outcome(Result.LIMITED, "not installed: no images with the amphora agent", error.remedy)
    return Outcome(Result.OK, " ".join(found))


def keyrings() -> Iterator[tuple[str, Callable[[Console], Outcome]]]:
    """Give a name and a probe for the archive keyring of each base system."""
    for base in BASES.values():
        if not base.published:  # an image brings its own
            yield f"{base.distribution} keyring", _keyring_probe(base)


def _keyring_probe(base: Base) -> Callable[[Console], Outcome]:
    def probe(_console: Console) -> Outcome:
        if _readable(base):
            return Outcome(Result.OK, base.keyring)
        # One keyring is enough to build with; the other system's is missing on most hosts.
        others = any(_readable(other) for other in BASES.values())
        return Outcome(
            Result.LIMITED if others else Result.MISSING,
            f"{base.keyring} is not there, so {base.name} cannot be built",
            f"install the package {base.keyring_package}, or name a keyring with DIB_APT_KEYRING",
        )

    return probe


def _readable(base: Base) -> bool:
    try:
        return len(Path(base.keyring).read_bytes()) > 0
    except OSError:
        return False
