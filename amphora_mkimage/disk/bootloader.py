"""Make the disk start, with the image's own GRUB and without any privilege.

update-grub, grub-mkimage and grub-bios-setup are the image's, run in a chroot. They want to know which device / lies
on; there is none. So /proc is replaced, for them alone, by a directory with a mountinfo that names a file as the
root's device: for update-grub a small filesystem with the real one's label and UUID, for grub-bios-setup the disk
itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.disk.filesystems import ROOT_LABEL
from amphora_mkimage.disk.tools import tool
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest import userns
from amphora_mkimage.guest.namespace import GUEST_ENVIRONMENT

FILES = Path(__file__).with_name("files")
_DEVICE = "/run/amphora-disk"
_SCRATCH = "/run/amphora-grub"
#: What GRUB needs to find /boot/grub on an ext4 of a GPT disk; all else it loads from there.
_CORE_MODULES = ("biosdisk", "part_gpt", "ext2", "search_fs_uuid", "normal")


@dataclass(frozen=True)
class Bootloader:
    """GRUB on one disk.

    :param tree: root of the image's tree
    :param distribution: name of the folder on the ESP where the signed GRUB looks for its configuration
    :param uuid: of the root filesystem
    :param scratch: directory for small files of ours
    """

    tree: Path
    distribution: str
    uuid: str
    scratch: Path
    console: Console

    def configure(self) -> None:
        """Write /boot/grub: the configuration that update-grub makes, and the modules for BIOS."""
        grub = self.tree / "boot/grub"
        (grub / "i386-pc").mkdir(parents=True, exist_ok=True)
        modules = sorted((self.tree / "usr/lib/grub/i386-pc").glob("*.mod"))
        if not modules:
            raise MkimageError("the image has no GRUB for BIOS in /usr/lib/grub/i386-pc")
        for file in (*modules, *(self.tree / "usr/lib/grub/i386-pc").glob("*.lst")):
            (grub / "i386-pc" / file.name).write_bytes(file.read_bytes())
        probe = self.scratch / "probe.img"
        with probe.open("wb") as file_object:
            file_object.truncate(4 << 20)
        argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", ROOT_LABEL]
        tool([*argv, "-U", self.uuid, probe], self.console, "cannot make the filesystem that update-grub looks at")
        with self._device(probe):
            self._run("grub-mkconfig", "-o", "/boot/grub/grub.cfg")
        probe.unlink()

    def esp_files(self) -> dict[str, Path]:
        """Give the content of the ESP: the signed shim and GRUB under the removable-media path, and where to go on."""
        stub = self.scratch / "esp-grub.cfg"
        stub.write_text(template("esp-grub.cfg", self.uuid), encoding="ascii")
        programs = esp_programs(lambda path: (self.tree / path[1:]).exists())
        files = {name: self.tree / path[1:] for name, path in programs.items()}
        return {**files, esp_stub(self.distribution): stub}

    def embed(self, disk: Path) -> None:
        """Write GRUB's boot sector and its core image, into the BIOS boot partition."""
        with self._device(disk):
            grub = self.tree / _SCRATCH[1:]
            grub.mkdir()
            (grub / "load.cfg").write_text(template("bios-load.cfg", self.uuid), encoding="ascii")
            core = ("grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", f"{_SCRATCH}/load.cfg")
            self._run(*core, "-o", f"{_SCRATCH}/core.img", *_CORE_MODULES)
            (grub / "boot.img").write_bytes((self.tree / "usr/lib/grub/i386-pc/boot.img").read_bytes())
            setup = _first(
                self.tree / "usr/lib/grub/i386-pc/grub-bios-setup",  # Debian keeps it from PATH
                self.tree / "usr/sbin/grub-bios-setup",
            )
            name = f"/{setup.relative_to(self.tree)}"
            self._run(name, f"--directory={_SCRATCH}", "--device-map=/dev/null", _DEVICE)

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


def template(name: str, uuid: str) -> str:
    """Give one of the configuration files under ``files/`` for a root filesystem with a UUID."""
    return (FILES / name).read_text(encoding="ascii").replace("@UUID@", uuid)


def esp_programs(exists: Callable[[str], bool]) -> dict[str, str]:
    """Say which of the image's files go onto the ESP: absolute paths by their name there.

    :param exists: tells whether the image has a path
    :raises MkimageError: it lacks one of them
    """
    shim = "/usr/lib/shim"
    candidates = {
        "EFI/BOOT/BOOTX64.EFI": (f"{shim}/shimx64.efi.signed.latest", f"{shim}/shimx64.efi.signed"),
        "EFI/BOOT/grubx64.efi": ("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",),
        "EFI/BOOT/mmx64.efi": (f"{shim}/mmx64.efi.signed", f"{shim}/mmx64.efi"),
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
