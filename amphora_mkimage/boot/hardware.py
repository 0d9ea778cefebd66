"""The virtual machine that each architecture gets: what qemu and Nova's libvirt driver make of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from amphora_mkimage.accelerator import Accelerator
from amphora_mkimage.errors import BadValueError

FirmwareKind = Literal["bios", "uefi", "openfirmware"]


@dataclass(frozen=True)
class Hardware:
    """A kind of virtual machine.

    :param qemu: the program that emulates it
    :param package: Debian's package of that
    :param machines: machine type by the firmware that it starts with; the first is the default
    :param processor: what is emulated, on a host that cannot run it
    :param hosts: machines (uname(2)) that have KVM for it
    :param uefi: what firmware descriptors call it (docs/interop/firmware.json in qemu's source)
    :param uefi_packages: what brings the firmware
    :param reporter: arguments for the port of the reporter, a character device of the same name
    :param drive: arguments for the config drive, a CD-ROM called "config"
    :param root_ports: firmware of the machine types that take a PCI card while they run behind a root port only
    """

    qemu: str
    package: str
    machines: dict[FirmwareKind, str]
    processor: str
    hosts: tuple[str, ...]
    uefi: str
    uefi_packages: str
    reporter: tuple[str, ...]
    drive: tuple[str, ...]
    root_ports: tuple[FirmwareKind, ...] = ()

    def firmware_kind(self, *, uefi: bool) -> FirmwareKind:
        """Give the firmware that is used.

        :param uefi: UEFI is asked for
        :raises BadValueError: this machine has none
        """
        if uefi and "uefi" not in self.machines:
            raise BadValueError("--uefi: there is no UEFI for this architecture here", "leave it out")
        return "uefi" if uefi else next(iter(self.machines))

    @property
    def native(self) -> bool:
        """Whether KVM of this host could run it."""
        return os.uname().machine in self.hosts

    def accelerator_arguments(self, accelerator: Accelerator) -> list[str]:
        """Accelerator, processor model and count for a qemu command line."""
        return accelerator.qemu_arguments() if self.native else accelerator.qemu_arguments(self.processor)


def foreign(hardware: Hardware) -> Accelerator:
    """Give the only way to run guests whose processor this host does not have."""
    return Accelerator(False, f"{hardware.hosts[0]} guests on {os.uname().machine}")


#: The port's name in files/reporter.py.
_PORT = "virtserialport,chardev=reports,name=amphora-mkimage.reports"
_VIRTIO_PORT = ("-device", "virtio-serial-pci", "-device", _PORT)
#: nova/virt/libvirt/blockinfo.py, get_disk_bus_for_device_type: there is no IDE on these machines.
_SCSI_CD = ("-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=config")
_X86 = Hardware(
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    # graphics=off: SeaBIOS sends its screen, and that of a boot loader which knows no serial port, to the serial
    # console, where a boot that ends there is recognised.
    machines={"bios": "pc,graphics=off", "uefi": "q35,graphics=off"},
    processor="max",
    hosts=("x86_64",),
    uefi="x86_64",
    uefi_packages="ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora)",
    reporter=("-serial", "chardev:reports"),
    drive=("-device", "ide-cd,drive=config"),
    root_ports=("uefi",),
)
HARDWARE = {
    "amd64": _X86,
    # 64-bit UEFI starts no 32-bit boot loader, and the 32-bit one that Debian has insists on Secure Boot.
    "i386": replace(_X86, machines={"bios": "pc,graphics=off"}),
    "arm64": Hardware(
        qemu="qemu-system-aarch64",
        package="qemu-system-arm",
        machines={"uefi": "virt,gic-version=max"},
        # "max" has pointer authentication, whose emulation takes most of the time.
        processor="cortex-a72",
        hosts=("aarch64",),
        uefi="aarch64",
        uefi_packages="qemu-efi-aarch64 (Debian, Ubuntu) or edk2-aarch64 (Fedora)",
        reporter=_VIRTIO_PORT,
        drive=_SCSI_CD,
        root_ports=("uefi",),
    ),
    "armhf": Hardware(
        qemu="qemu-system-arm",
        package="qemu-system-arm",
        machines={"uefi": "virt"},
        processor="cortex-a15",
        hosts=("armv7l",),
        uefi="arm",
        uefi_packages="qemu-efi-arm (Debian, Ubuntu) or edk2-arm (Fedora)",
        reporter=_VIRTIO_PORT,
        drive=_SCSI_CD,
        root_ports=("uefi",),
    ),
    "ppc64el": Hardware(
        qemu="qemu-system-ppc64",
        package="qemu-system-ppc",
        machines={"openfirmware": "pseries"},  # its firmware, SLOF, comes with qemu
        processor="power9",
        hosts=("ppc64le",),
        uefi="",
        uefi_packages="",
        reporter=_VIRTIO_PORT,
        drive=_SCSI_CD,
    ),
}
