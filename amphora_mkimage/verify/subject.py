"""What the checks look at: the image, what it should be, and cached views of the guest in it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from functools import cached_property

from amphora_mkimage.architecture import ARCHITECTURES, Architecture
from amphora_mkimage.verify import boot_config, package_database
from amphora_mkimage.verify.boot_config import BootEntry
from amphora_mkimage.verify.expectations import Expectations
from amphora_mkimage.verify.guest_disk import GuestDisk
from amphora_mkimage.verify.image_file import ImageFile
from amphora_mkimage.verify.kernel_file import HEAD_BYTES, kernel_kind
from amphora_mkimage.verify.package_database import DatabaseError, Package
from amphora_mkimage.verify.tar_tree import TarTree
from amphora_mkimage.verify.tree import Tree, TreeError, is_root

DEBIAN_FAMILY = ("debian", "ubuntu")
RPM_FAMILY = ("fedora", "rhel", "rocky", "centos")
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_GRUB_CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_EXTLINUX_CONFIGS = ("/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg", "/extlinux.conf")
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


#: Where programs of an architecture look for their dynamic linker; a 64-bit system may have the 32-bit one besides.
_LINKERS = {
    "amd64": "/lib64/ld-linux-x86-64.so.2",
    "i386": "/lib/ld-linux.so.2",
    "arm64": "/lib/ld-linux-aarch64.so.1",
    "armhf": "/lib/ld-linux-armhf.so.3",
    "ppc64el": "/lib64/ld64.so.2",
}


class Subject:
    """An image under verification.

    :param disk: what an appliance found, for a disk
    :param archive: what a tar has in it, for a tar
    :param building: the tree that a build has made, for a build
    """

    def __init__(
        self,
        image: ImageFile,
        expected: Expectations,
        *,
        disk: GuestDisk | None = None,
        archive: TarTree | None = None,
        building: Tree | None = None,
    ) -> None:
        self.image = image
        self.expected = expected
        self.disk = disk
        self.archive = archive
        #: the guest's root filesystem, None when there is none to look at
        self.root: Tree | None = disk.tree if disk else (archive or building)
        if archive and not is_root(archive):
            self.root = None

    @property
    def tree(self) -> Tree:
        """The guest's root filesystem; checks of the guest run only when there is one."""
        assert self.root is not None
        return self.root

    # --- identity and packages -----------------------------------------------------------------------------------

    @cached_property
    def os_release(self) -> dict[str, str]:
        """os-release(5)."""
        text = self.tree.text("/etc/os-release") or self.tree.text("/usr/lib/os-release")
        fields = {}
        for line in text.splitlines():
            name, separator, value = line.partition("=")
            if separator and name.isidentifier():
                try:
                    fields[name] = "".join(shlex.split(value)[:1])
                except ValueError:
                    fields[name] = value
        return fields

    @cached_property
    def architecture(self) -> Architecture | None:
        """The architecture of the guest's programs, None when it is not known."""
        name = next((name for name, path in _LINKERS.items() if self.tree.exists(path)), "")
        return ARCHITECTURES.get(name)

    @property
    def family(self) -> str:
        """Tell "debian" from "rpm", "" for neither."""
        words = [self.os_release.get("ID", ""), *self.os_release.get("ID_LIKE", "").split()]
        if any(word in DEBIAN_FAMILY for word in words):
            return "debian"
        return "rpm" if any(word in RPM_FAMILY for word in words) else ""

    @cached_property
    def packages(self) -> dict[str, Package]:
        """What the package database knows, by name; empty when it cannot be read (see :attr:`packages_problem`)."""
        try:
            return {package.name: package for package in self._read_packages()}
        except DatabaseError:
            return {}

    @property
    def packages_problem(self) -> str:
        """Why there is no list of packages, or ""."""
        if self.packages:
            return ""
        try:
            self._read_packages()
        except DatabaseError as error:
            return f"the RPM database cannot be read: {error}"
        if self.tree.is_file(package_database.DPKG_STATUS):
            return "dpkg's database is empty"
        if any(self.tree.is_file(path) for path in package_database.RPM_OTHER):
            return "the RPM database is in a format that was given up before any release that the agent runs on"
        return "there is no package database"

    def _read_packages(self) -> list[Package]:
        if self.tree.is_file(package_database.DPKG_STATUS):
            return package_database.parse_dpkg(self.tree.text(package_database.DPKG_STATUS))
        for path in package_database.RPM_DATABASES:
            if self.tree.is_file(path):
                log = f"{path}-wal"
                return package_database.parse_rpm(
                    self.tree.read(path), self.tree.read(log) if self.tree.is_file(log) else b""
                )
        return []

    # --- files ---------------------------------------------------------------------------------------------------

    def program(self, name: str) -> str | None:
        """Find an executable as the PATH of a service would; its path, None without one."""
        return next((f"{d}/{name}" for d in _PATH if self.tree.is_executable(f"{d}/{name}")), None)

    def lines(self, path: str) -> list[str]:
        """Read a configuration file's lines without comments and blanks."""
        stripped = (line.strip() for line in self.tree.text(path).splitlines())
        return [line for line in stripped if line and line[0] not in "#;"]

    def drop_ins(self, directory: str, pattern: str) -> list[str]:
        """Give the regular files of a drop-in directory, in the order in which they are read."""
        names = self.tree.listdir(directory, pattern)
        return [f"{directory}/{name}" for name in names if self.tree.is_file(f"{directory}/{name}")]

    # --- services ------------------------------------------------------------------------------------------------

    @cached_property
    def enabled_units(self) -> frozenset[str]:
        """Units that something wants: linked from a .wants or .requires directory (systemd.unit(5))."""
        units: set[str] = set()
        for directory in _UNIT_DIRECTORIES:
            for name, entry in self.tree.listdir(directory).items():
                if entry.is_directory and name.endswith((".wants", ".requires", ".upholds")):
                    units.update(self.tree.listdir(f"{directory}/{name}"))
        return frozenset(unit for unit in units if not self.is_masked(unit))

    def is_masked(self, unit: str) -> bool:
        """Tell whether a unit is masked: linked to /dev/null, or empty (systemd.unit(5))."""
        path = f"/etc/systemd/system/{unit}"
        entry = self.tree.entry(path, follow=False)
        return entry is not None and (entry.target == "/dev/null" or (entry.is_file and entry.size == 0))

    def has_unit(self, unit: str) -> bool:
        """Tell whether a unit file is there."""
        return any(self.tree.is_file(f"{directory}/{unit}") for directory in _UNIT_DIRECTORIES)

    def started_by(self, unit: str) -> list[str]:
        """Give the programs by absolute path that a unit's ExecStart= lines start, drop-ins left out."""
        path = next((f"{d}/{unit}" for d in _UNIT_DIRECTORIES if self.tree.is_file(f"{d}/{unit}")), "")
        lines = self.lines(path) if path else []
        return [match[1] for line in lines if (match := re.match(r"ExecStart\s*=\s*[-@:+!|]*(/\S+)", line))]

    # --- what is booted ------------------------------------------------------------------------------------------

    @cached_property
    def grub_configs(self) -> list[boot_config.GrubConfig]:
        """Every grub.cfg of the guest and of its EFI system partition."""
        texts = {path: self.tree.text(path) for path in _GRUB_CONFIGS}
        if self.disk:
            texts.update({f"ESP:{path}": text for path, text in self.disk.esp_configs.items()})
        return [boot_config.parse_grub(text, path) for path, text in texts.items() if text]

    @cached_property
    def boot_entries(self) -> list[BootEntry]:
        """What the bootloader offers, without rescue entries; what it boots by default is first, as a rule."""
        entries = [entry for config in self.grub_configs for entry in config.entries]
        entries += self._bls_entries()
        for path in _EXTLINUX_CONFIGS:
            entries += boot_config.parse_extlinux(self.tree.text(path), path)
        wanted = [e for e in entries if "rescue" not in posixpath.basename(e.kernel) and "rescue" not in e.source]
        return [e for e in wanted if not re.search(r"(?:^|\s)(?:single|rescue)(?:\s|$)", e.options)]

    def _bls_entries(self) -> Iterator[BootEntry]:
        variables: dict[str, str] = {}
        for path in ("/boot/grub2/grubenv", "/boot/grub/grubenv"):
            variables.update(boot_config.parse_environment_block(self.tree.text(path)))
        for path in reversed(self.drop_ins("/boot/loader/entries", "*.conf")):
            entry = boot_config.parse_bls(self.tree.text(path), path, variables)
            if entry:
                yield entry

    def boot_path(self, path: str) -> str:
        """Find a file that a bootloader names in the guest's tree.

        The bootloader's path starts at the filesystem with the file: the root, /boot, or a btrfs with the root in a
        subvolume.
        """
        below_subvolume = "/" + path.lstrip("/").partition("/")[2]
        for candidate in (path, f"/boot/{path.lstrip('/')}", below_subvolume):
            if self.tree.is_file(candidate):
                return candidate
        return path

    @cached_property
    def kernel_versions(self) -> list[str]:
        """Versions that have a directory with modules."""
        modules = self.tree.listdir("/lib/modules")
        return [name for name, entry in modules.items() if entry.is_directory]

    @cached_property
    def booted_version(self) -> str:
        """The version of the kernel that is booted by default, or ""."""
        for entry in self.boot_entries[:1]:
            return self.version_of(entry)
        return ""

    def version_of(self, entry: BootEntry) -> str:
        """Tell a kernel's version: what its file says, else what its name says."""
        try:
            version = kernel_kind(self.tree.read(self.boot_path(entry.kernel), size=HEAD_BYTES))[1]
        except TreeError:
            version = ""
        name = posixpath.basename(entry.kernel)
        return version or re.sub(r"^(?:vmlinu[xz]|Image|linux)-?", "", name)
