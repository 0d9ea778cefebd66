"""Make the disk start, with the image's own GRUB and without any privilege.

update-grub, grub-mkimage and grub-bios-setup are the image's, run in a chroot. They want to know which device / lies
on; there is none. So /proc is replaced, for them alone, by a directory with a mountinfo that names a file as the
root's device: for update-grub a small filesystem with the real one's label and UUID, for grub-bios-setup the disk
itself.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.architecture import Architecture, Efi
from amphora_mkimage.console import Console
from amphora_mkimage.disk.filesystems import ROOT_LABEL
from amphora_mkimage.disk.layout import Extent
from amphora_mkimage.disk.tools import splice, tool
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import GUEST_ENVIRONMENT

FILES = Path(__file__).with_name("files")
_DEVICE = "/run/amphora-disk"
_SCRATCH = "/run/amphora-grub"
#: What GRUB needs to find /boot/grub on an ext4 of a GPT disk; all else it loads from there.
_CORE_MODULES = ("part_gpt", "ext2", "search_fs_uuid", "normal")


@dataclass(frozen=True)
class Naming:
    """How a family of distributions calls GRUB's parts.

    :param prefix: of its programs' names
    :param directory: of its configuration and modules
    :param on_esp: the packages put the signed programs below /boot/efi, ready to be copied
    """

    prefix: str
    directory: str
    on_esp: bool = False

    def core(self, platform: str, scratch: str, *modules: str) -> list[str]:
        """Give the command line that makes a GRUB of :func:`template` "load.cfg", as ``core``; both in a directory."""
        line = [f"{self.prefix}-mkimage", "-O", platform, "-p", self.directory, "-c", f"{scratch}/load.cfg"]
        return [*line, "-o", f"{scratch}/core", *modules, *_CORE_MODULES]


DEBIAN = Naming("grub", "/boot/grub")
REDHAT = Naming("grub2", "/boot/grub2", on_esp=True)


@dataclass(frozen=True)
class Bootloader:
    """GRUB on one disk.

    :param tree: root of the image's tree
    :param naming: of the image's distribution
    :param folder: of the ESP, where the signed GRUB looks for its configuration
    :param uuid: of the root filesystem
    :param scratch: directory for small files of ours
    :param architecture: of the image
    """

    tree: Path
    naming: Naming
    folder: str
    uuid: str
    scratch: Path
    console: Console
    architecture: Architecture

    def configure(self) -> None:
        """Fill GRUB's directory: the configuration that its own tool makes, and the modules of each GRUB that we make.

        A signed GRUB has its modules inside.
        """
        efi = self.architecture.efi
        ours = (self.architecture.bios, self.architecture.open_firmware, efi.platform if efi and not efi.signed else "")
        self._directory.mkdir(exist_ok=True)
        for platform in filter(None, ours):
            self._copy_modules(platform)
        probe = self.scratch / "probe.img"
        with probe.open("wb") as file_object:
            file_object.truncate(4 << 20)
        argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", ROOT_LABEL]
        tool([*argv, "-U", self.uuid, probe], self.console, "cannot make the filesystem that update-grub looks at")
        with self._device(probe):
            self._run(f"{self.naming.prefix}-mkconfig", "-o", f"{self.naming.directory}/grub.cfg")
        probe.unlink()

    def esp_files(self) -> dict[str, Path]:
        """Give the content of the ESP, all under the removable-media path; nothing where there is no UEFI.

        Where the distribution signs: its shim and GRUB, and where to go on. Else a GRUB of ours that knows that.
        """
        efi = self.architecture.efi
        if efi is None:
            return {}
        loader = f"EFI/BOOT/BOOT{efi.suffix.upper()}.EFI"
        if not efi.signed:
            return {loader: self._core_image(efi.platform, self.scratch / "grub.efi")}
        stub = self.scratch / "esp-grub.cfg"
        stub.write_text(template("esp-grub.cfg", self.uuid, self.naming), encoding="ascii")
        vendor = self.folder if self.naming.on_esp else ""
        programs = esp_programs(efi, lambda path: (self.tree / path[1:]).exists(), vendor)
        files = {name: self.tree / path[1:] for name, path in programs.items()}
        return {**files, esp_stub(self.folder): stub}

    def embed(self, disk: Path, prep: Extent | None = None) -> None:
        """Write what firmware looks for outside of filesystems.

        For a BIOS that is GRUB's boot sector and, in the BIOS boot partition, its core image; for Open Firmware the
        core image in the PReP partition.

        :param prep: where that one lies
        """
        if self.architecture.bios:
            self._embed_for_bios(disk)
        if prep is not None:
            core = self._core_image(self.architecture.open_firmware, self.scratch / "core.elf")
            splice(core, disk, prep.offset)

    def _embed_for_bios(self, disk: Path) -> None:
        platform = self.architecture.bios
        modules = self.tree / "usr/lib/grub" / platform
        core = self._core_image(platform, self.scratch / "core.img", "biosdisk")
        with self._device(disk):
            grub = self.tree / _SCRATCH[1:]
            grub.mkdir()
            shutil.copyfile(core, grub / "core.img")
            shutil.copyfile(modules / "boot.img", grub / "boot.img")
            # Debian keeps it from PATH.
            program = f"{self.naming.prefix}-bios-setup"
            setup = _first(modules / program, self.tree / "usr/sbin" / program)
            name = f"/{setup.relative_to(self.tree)}"
            self._run(name, f"--directory={_SCRATCH}", "--device-map=/dev/null", _DEVICE)

    def _copy_modules(self, platform: str) -> None:
        source, target = self.tree / "usr/lib/grub" / platform, self._directory / platform
        modules = sorted(source.glob("*.mod"))
        if not modules:
            raise MkimageError(f"the image has no GRUB in /usr/lib/grub/{platform}")
        target.mkdir(exist_ok=True)
        for file in (*modules, *source.glob("*.lst")):
            shutil.copyfile(file, target / file.name)

    def _core_image(self, platform: str, target: Path, *modules: str) -> Path:
        """Make a GRUB that finds the root filesystem and goes on there; gives ``target``."""
        grub = self.tree / _SCRATCH[1:]
        grub.mkdir(parents=True)
        (grub / "load.cfg").write_text(template("load.cfg", self.uuid, self.naming), encoding="ascii")
        self._run(*self.naming.core(platform, _SCRATCH, *modules))
        shutil.copyfile(grub / "core", target)
        shutil.rmtree(grub)
        return target

    @property
    def _directory(self) -> Path:
        return self.tree / self.naming.directory[1:]

    @contextlib.contextmanager
    def _device(self, file: Path) -> Iterator[None]:
        """Let GRUB's tools see a file as the device that / lies on."""
        targets = [self.tree / name for name in ("proc", "run", "dev")]
        try:
            for target in targets:
                userns.mount("tmpfs", target, "tmpfs", 0, "mode=755")
            device = self.tree / _DEVICE[1:]
            device.touch()
            userns.mount(str(file), device, "", userns.MS_BIND)
            null = self.tree / "dev/null"
            null.touch()
            userns.mount("/dev/null", null, "", userns.MS_BIND)
            (self.tree / "proc/self").mkdir()
            (self.tree / "proc/devices").touch()
            (self.tree / "proc/self/mountinfo").write_text(f"1 0 1:1 / / rw - ext4 {_DEVICE} rw\n", encoding="ascii")
            yield
        finally:
            for target in targets:
                with contextlib.suppress(OSError):
                    userns.unmount(target)

    def _run(self, *arguments: str) -> None:
        argv = ["chroot", str(self.tree), *arguments]
        process.run(argv, self.console, what="cannot install the bootloader", env=GUEST_ENVIRONMENT)


def template(name: str, uuid: str, naming: Naming) -> str:
    """Give one of the configuration files under ``files/`` for a root filesystem with a UUID."""
    text = (FILES / name).read_text(encoding="ascii")
    return text.replace("@UUID@", uuid).replace("@DIRECTORY@", naming.directory)


def esp_programs(efi: Efi, exists: Callable[[str], bool], vendor: str = "") -> dict[str, str]:
    """Say which of the image's files go onto the ESP where the distribution signs: absolute paths by their name there.

    The shim's fallback program is left out: it would write boot entries into each machine's firmware and start it anew.

    :param exists: tells whether the image has a path
    :param vendor: folder that the packages fill below /boot/efi/EFI, "" where they put the programs elsewhere
    :raises MkimageError: it lacks one of them
    """
    shim, name = "/usr/lib/shim", efi.suffix
    ready = [f"/boot/efi/EFI/{vendor}/{program}{name}.efi" for program in ("shim", "grub", "mm")]
    shims, grubs, managers = ([path] for path in ready)
    if not vendor:
        shims = [f"{shim}/shim{name}.efi.signed.latest", f"{shim}/shim{name}.efi.signed"]
        grubs = [f"/usr/lib/grub/{efi.platform}-signed/grub{name}.efi.signed"]
        managers = [f"{shim}/mm{name}.efi.signed", f"{shim}/mm{name}.efi"]
    candidates = {
        f"EFI/BOOT/BOOT{name.upper()}.EFI": shims,
        f"EFI/BOOT/grub{name}.efi": grubs,
        f"EFI/BOOT/mm{name}.efi": managers,
    }
    found = {name: next(filter(exists, paths), "") for name, paths in candidates.items()}
    missing = [candidates[name][-1] for name, path in found.items() if not path]
    if missing:
        raise MkimageError(f"the image lacks parts of its EFI bootloader: {', '.join(missing)}")
    return found


def esp_stub(distribution: str) -> str:
    """Say where on the ESP the signed GRUB looks for its configuration."""
    return f"EFI/{distribution}/grub.cfg"


def _first(*candidates: Path) -> Path:
    return next((path for path in candidates if path.exists()), candidates[-1])
