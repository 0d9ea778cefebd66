"""A build in libguestfs' appliance: base tar in, packages and stages on a mounted disk, bootable disk or tar out.

For hosts where no user namespace can be had: all that asks for root (owners, mounts, chroot, GRUB) happens in a
virtual machine. What the host can do on plain files it does: partition table and empty filesystems, the files that the
guest is offered, image formats. No tree goes through libguestfs' calls, which move 8 KiB at a time: the base comes as a
disk that is a tar, the host's files as a disk that is an ext4, and a tar leaves on a disk that it is written to raw.
"""

from __future__ import annotations

import contextlib
import os
import re
import types
from collections.abc import Iterator
from pathlib import Path

from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.console import Console
from amphora_mkimage.disk import bootloader, filesystems, formats, layout, selinux_labels
from amphora_mkimage.disk.bootloader import Naming
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest import appliance_network
from amphora_mkimage.guest.appliance_guest import ROOT, ApplianceGuest
from amphora_mkimage.libguestfs import CallError, Session

#: Installing the packages of an amphora under emulation on a slow host takes an hour, and longer beside other work.
DEADLINE_SECONDS = 4 * 3600.0
#: The page cache of what dpkg unpacks, and update-initramfs.
_MEMORY_MIB = 2048
_COPY_BYTES = 1 << 30
#: Labels of drives: names that hold in the appliance's shell too, where the kernel probes disks in any order
#: (guestfs(3), "DISK LABELS").
_DISK, _BASE, _OFFER, _SCRATCH, _TAR = "disk", "base", "offer", "scratch", "tar"
#: What dnf downloads, for which an image's disk may be too small; where nothing is written it takes no space.
_SCRATCH_GIB = 16
_BIOS = "i386-pc"
_MODULES = f"/usr/lib/grub/{_BIOS}"
#: In the guest, of which nothing stays.
_BARE = "/run/amphora-tree"


def _device(label: str) -> str:
    return f"/dev/disk/guestfs/{label}"


class ApplianceBuild:
    """A disk under construction in an appliance; a context manager, which gives itself with the base unpacked.

    :param work: an empty directory of our own; everything that is written lies there
    :param base: tar of the base's root filesystem, not compressed
    :param size_gib: of the disk
    :param arch: "amd64": its programs run in the appliance, which has the host's kernel, and its GRUB is signed
    :param filesystem_uuid: for the root filesystem
    :param offer: a directory of the host that the guest may read with :meth:`offered`; everybody in the guest can
    :param tar: whether :meth:`write_tar` will be called
    :param network: whether the guest has a network until :meth:`without_network`, see
        :mod:`~amphora_mkimage.guest.appliance_network`; and room for downloads, see :meth:`scratch`
    :param deadline: seconds from launch to the end, then it fails
    :raises HostError: libguestfs is missing or does not start
    :raises BadValueError: the base does not fit on the disk
    """

    def __init__(
        self,
        work: Path,
        base: Path,
        *,
        size_gib: int,
        arch: str,
        filesystem_uuid: str,
        accelerator: Accelerator,
        console: Console,
        offer: Path | None = None,
        tar: bool = False,
        network: bool = False,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        efi = ARCHITECTURES[arch].efi
        if arch != "amd64" or efi is None:
            raise HostError(f"an appliance cannot build images for {arch}", "use a host that allows user namespaces")
        self.disk = work / "disk.raw"
        self._efi = efi
        self._work = work
        self._base = base
        self._size_gib = size_gib
        self._arch = arch
        self._uuid = filesystem_uuid
        self._console = console
        self._offer = offer
        self._tar = work / "tar.raw" if tar else None
        self._network = network
        self._session = Session(
            accelerator,
            console,
            deadline,
            memory_mib=_MEMORY_MIB,
            network=network,
            scratch=work,
            written=self.disk,
        )
        #: the root filesystem, as stages see it
        self.guest = ApplianceGuest(self._session, console)

    def __enter__(self) -> ApplianceBuild:
        try:
            self._attach()
            self._session.launch()
            self._unpack()
        except BaseException:
            self._session.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._session.close()

    @contextlib.contextmanager
    def offered(self, path: str) -> Iterator[None]:
        """Show the offered directory in the guest, read-only, for the time of the block, inside ``guest.mounted()``.

        :param path: in the guest; made, on a filesystem that is not the tree's
        """
        with self.guest.attached(_device(_OFFER), path):
            yield

    @contextlib.contextmanager
    def scratch(self, path: str) -> Iterator[None]:
        """Have a disk of its own for what is downloaded, for the time of the block; of builds with a network.

        :param path: in the guest; a directory, which is made
        """
        with self.guest.attached(_device(_SCRATCH), path, writable=True):
            yield

    def without_network(self) -> None:
        """Take the network away for good: the appliance loses the device itself."""
        if self._network:
            names = appliance_network.FILES
            self.guest.script("without-network", ROOT, *names, what="cannot take the network away from the appliance")
            self._network = False

    def install_bootloader(self, naming: Naming, folder: str) -> None:
        """Make the disk start under BIOS and UEFI, with the guest's own GRUB.

        :param naming: of the guest's distribution
        :param folder: of the ESP, where the signed GRUB looks for its configuration
        """
        with self.guest.mounted():
            if self.guest.is_dir(_MODULES):
                self._install_bios(naming)
            self._fill_esp(naming, folder)

    def label(self, path: str = "/") -> None:
        """Give files the labels that the guest's SELinux policy has for them.

        They are seen below another mount of the filesystem, on which nothing is mounted: the directories that commands
        need something on have labels of their own.

        :param path: what to label, with all below it
        :raises MkimageError: setfiles is missing or knows no contexts
        """
        with self.guest.mounted(), self.guest.bare(_BARE):
            self.guest.command(selinux_labels.relabel_command(_BARE, path))
        try:
            self._session.call("lgetxattr", path, "security.selinux")
        except CallError as error:  # so setfiles(8) ended well, but did nothing
            raise MkimageError(*selinux_labels.NO_LABELS) from error

    def write_tar(self, target: int) -> None:
        """Write the tree as :func:`~amphora_mkimage.disk.formats.archive` does.

        :param target: descriptor of the file to write
        """
        assert self._tar is not None
        argv = formats.archive_command(_device(_TAR), ROOT)
        printed = self.guest.script("totals", *argv, what="cannot write the tar")
        written = re.search(r"Total bytes written: (\d+)", printed)
        if written is None:
            raise MkimageError("tar did not say how much it wrote", tail=printed.splitlines()[-5:])
        left = int(written[1])
        with self._tar.open("rb") as source:
            while left > 0:
                copied = os.sendfile(target, source.fileno(), None, min(left, _COPY_BYTES))
                if copied == 0:
                    raise MkimageError("the tar that left the appliance ends early")
                left -= copied

    def finish(self) -> Path:
        """Give unused blocks back, unmount, and shut the appliance down; the finished raw disk."""
        self.without_network()  # or the guest would keep the appliance's resolv.conf
        with contextlib.suppress(CallError):  # a filesystem of the host that cannot make holes: the file is larger
            self._session.call("fstrim", "/")
        self._session.call("umount_all")
        self._session.call("shutdown")
        return self.disk

    def _attach(self) -> None:
        """Make the disks and hand them to libguestfs, the writable ones without regard to a crash of this host."""
        places = layout.partition(self.disk, self._size_gib, self._arch, self._console)
        filesystems.make_root(None, self.disk, places.root, self._uuid, self._console)
        assert places.esp is not None  # of amd64
        filesystems.make_esp({}, self.disk, places.esp, self._work, self._console)
        handle = self._session.handle
        writable = {"format": "raw", "cachemode": "unsafe"}
        handle.add_drive_opts(os.fspath(self.disk), label=_DISK, discard="besteffort", **writable)
        handle.add_drive_opts(os.fspath(self._base), label=_BASE, format="raw", readonly=True)
        if self._offer is not None:
            image = self._work / "offer.raw"
            filesystems.make_volume(self._offer, image, self._console)
            handle.add_drive_opts(os.fspath(image), label=_OFFER, format="raw", readonly=True)
        if self._network:
            image = self._work / "scratch.raw"
            filesystems.make_scratch(image, _SCRATCH_GIB * layout.GIB, self._console)
            handle.add_drive_opts(os.fspath(image), label=_SCRATCH, **writable)
        if self._tar is not None:
            with self._tar.open("wb") as file:
                file.truncate(2 * self._size_gib * layout.GIB)  # a hole; many small files take more room in a tar
            handle.add_drive_opts(os.fspath(self._tar), label=_TAR, **writable)

    def _unpack(self) -> None:
        with self._console.step("unpack the base"):
            self._session.call("mount_options", "noatime", "/dev/sda3", "/")
            self.guest.script("unpack", _device(_BASE), ROOT, what="cannot unpack the base")
            if self._network:
                self._give_network()

    def _give_network(self) -> None:
        names = appliance_network.FILES
        self.guest.script("with-network", ROOT, *names, what="cannot give the image a network")
        for name, content in appliance_network.of_host().items():
            self.guest.write_append(name, content)

    def _install_bios(self, naming: Naming) -> None:
        """Write GRUB's boot sector and core image as :meth:`~amphora_mkimage.disk.bootloader.Bootloader.embed` does.

        grub-install would do so too, and leave more beside the modules than is ever read.
        """
        guest, prefix, directory = self.guest, naming.prefix, naming.directory
        guest.mkdir_p(f"{directory}/{_BIOS}")
        modules = [*guest.glob_expand(f"{_MODULES}/*.mod"), *guest.glob_expand(f"{_MODULES}/*.lst")]
        guest.command(["cp", "-t", f"{directory}/{_BIOS}", *modules])
        # On the disk: grub-bios-setup looks which device its files lie on.
        scratch = f"{directory}/amphora"
        guest.mkdir_p(scratch)
        guest.write(f"{scratch}/load.cfg", bootloader.template("load.cfg", self._uuid, naming).encode())
        guest.command(naming.core(_BIOS, scratch, "biosdisk"))
        guest.mv(f"{scratch}/core", f"{scratch}/core.img")
        guest.command(["cp", f"{_MODULES}/boot.img", scratch])
        kept_from_path = f"{_MODULES}/{prefix}-bios-setup"  # by Debian
        setup = kept_from_path if guest.exists(kept_from_path) else f"{prefix}-bios-setup"
        devices = f"{directory}/device.map"
        with self._real_devices() as disk:
            # "(hd0)": or its place in this appliance would be noted.
            guest.write(devices, f"(hd0) {disk}\n".encode())
            guest.command([f"{prefix}-mkconfig", "-o", f"{directory}/grub.cfg"])
            guest.command([setup, f"--directory={scratch}", f"--device-map={devices}", disk])
            guest.rm_f(devices)
        guest.rm_rf(scratch)
        # Where the disk was among the appliance's: wrong wherever the image starts, and different from build to build.
        configuration = guest.read_file(f"{directory}/grub.cfg")
        guest.write(f"{directory}/grub.cfg", re.sub(rb" --hint(?:-\w+)?=\S+", b"", configuration))

    def _fill_esp(self, naming: Naming, folder: str) -> None:
        programs = bootloader.esp_programs(self._efi, self.guest.exists, folder if naming.on_esp else "")
        stub = bootloader.esp_stub(folder)
        esp = "/run/esp"
        self.guest.mkdir_p(esp)
        self._session.call("mount_options", "", "/dev/sda2", esp)
        for directory in sorted({name.rpartition("/")[0] for name in (*programs, stub)}):
            self.guest.mkdir_p(f"{esp}/{directory}")
        for name, path in programs.items():
            self._session.call("cp", path, f"{esp}/{name}")
        self.guest.write(f"{esp}/{stub}", bootloader.template("esp-grub.cfg", self._uuid, naming).encode())
        self._session.call("umount", esp)

    @contextlib.contextmanager
    def _real_devices(self) -> Iterator[str]:
        """Show the guest the appliance's devices, as GRUB's tools need them; the disk's name there."""
        name = self.guest.script("show-devices", ROOT, _device(_DISK), what="cannot show the disk to GRUB")
        try:
            yield name
        finally:
            with contextlib.suppress(MkimageError):
                self.guest.script("hide-devices", ROOT, what="cannot hide the disk from the image")
