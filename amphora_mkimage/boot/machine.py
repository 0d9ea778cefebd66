"""The virtual machine: a qemu process that sees the image copy-on-write and dies with us."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.boot import agent, vip
from amphora_mkimage.boot.firmware import Firmware
from amphora_mkimage.boot.hardware import Hardware
from amphora_mkimage.boot.management import MAC, NETWORKS, Kind
from amphora_mkimage.boot.qmp import Monitor
from amphora_mkimage.boot.router import Link
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.verify import partition_table

#: By the names of qemu's drivers; "vpc" is Microsoft's VHD.
FORMATS = ("qcow2", "raw", "vpc")

_FORWARD = re.compile(r"(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+(\S+)\s+(\d+)")
#: The guest's address in qemu's user network.
_USER = NETWORKS[Kind.USER].addresses[4]
_SECTOR = 512
#: More than the protective MBR, the header and the entries of a GPT.
_START = 64 << 10


def image_format(image: Path, console: Console) -> str:
    """Find out the format of an image, one of :data:`FORMATS`.

    :raises BadValueError: there is no such file, or it is no disk image
    """
    if not image.is_file():
        raise BadValueError(f"{image}: no such file", "name an image in one of the formats qcow2, raw, vhd")
    argv = ["qemu-img", "info", "--output=json", str(image.absolute())]
    # It fails when another program writes to the image, and says so.
    remedy = "end what uses the image; it must be a qcow2, raw or vhd file"
    info = json.loads(process.run(argv, console, what=f"cannot read {image}", remedy=remedy))
    found = str(info["format"])
    if "backing-filename" in info or info.get("format-specific", {}).get("data", {}).get("data-file"):
        # qemu would open whatever host file a hostile image names.
        raise BadValueError(f"{image} refers to another file", "flatten it: qemu-img convert -O qcow2 IMAGE NEW")
    if found not in FORMATS:
        raise BadValueError(f"{image}: format {found} cannot be booted", "accepted formats: qcow2, raw, vhd")
    if found == "raw" and not _has_boot_signature(image):
        # Whatever qemu-img does not know is "raw" to it, be it a disk or a letter.
        raise BadValueError(
            f"{image} is no disk image: neither qcow2 nor vhd, and as a raw disk it has no partition table",
            "name an image in one of the formats qcow2, raw, vhd",
        )
    return found


def image_architecture(image: Path, image_format: str, directory: Path, console: Console) -> str:
    """Find out the architecture of an image from the type of its root partition; "" when that does not say.

    :param image_format: one of :data:`FORMATS`
    :param directory: where a small file may be made
    """
    start = directory / "start"
    argv = ["qemu-img", "dd", "-f", image_format, "-O", "raw", f"bs={_START}", "count=1"]
    process.run([*argv, f"if={image.absolute()}", f"of={start}"], console, what=f"cannot read {image}")
    content = start.read_bytes()
    start.unlink()
    table = partition_table.parse(lambda offset, size: content[offset : offset + size], len(content))
    types = {partition.type for partition in table.partitions}
    return next((a.name for a in ARCHITECTURES.values() if a.root_type.lower() in types), "")


def _has_boot_signature(image: Path) -> bool:
    """Has the first sector the signature of a boot record, which a GPT disk has as well (its protective MBR)?"""
    with image.open("rb") as file:
        sector = file.read(_SECTOR)
    return len(sector) == _SECTOR and sector.endswith(b"\x55\xaa")


@dataclass(frozen=True)
class Drawing:
    """The plan of the machine.

    :param image: the disk; never written to
    :param image_format: one of :data:`FORMATS`
    :param drive: the config drive (ISO 9660)
    :param directory: where the machine's files go: console, reports, messages of qemu, variable store
    :param accelerator: qemu's arguments for accelerator, processor model and count
    :param memory: MiB
    :param firmware: UEFI firmware; None is qemu's own firmware for this kind of machine
    :param http_port: the guest's port that is to be reached from here, besides the agent's
    :param hardware: the kind of machine
    :param link: of the management card, where a router stands behind it; None is qemu's user network
    """

    image: Path
    image_format: str
    drive: Path
    directory: Path
    accelerator: list[str]
    memory: int
    firmware: Firmware | None
    http_port: int
    hardware: Hardware
    link: Link | None = None

    @property
    def console(self) -> Path:
        """What the guest prints on its serial console."""
        return self.directory / "console.log"

    @property
    def reports(self) -> Path:
        """What the reporter writes to its port."""
        return self.directory / "reports.jsonl"

    @property
    def wire(self) -> Path:
        """Every frame of the management network (libpcap's format)."""
        return self.directory / "management.pcap"

    @property
    def vip_bus(self) -> str:
        """The bus that takes a card while the machine runs; "" is the main one."""
        kind = self.hardware.firmware_kind(uefi=self.firmware is not None)
        return vip.ROOT_PORT if kind in self.hardware.root_ports else ""

    def arguments(self, monitor: int) -> list[str]:
        """Make the command line of qemu.

        :param monitor: an inherited, connected socket for the monitor
        """
        kind = self.hardware.firmware_kind(uefi=self.firmware is not None)
        return [
            self.hardware.qemu, "-no-user-config", "-nodefaults", "-display", "none", "-vga", "none",
            "-machine", self.hardware.machines[kind], *self.accelerator, "-m", str(self.memory),
            *self._firmware_arguments(),
            # snapshot=on: writes go to a file that qemu unlinks as soon as it has opened it, so nothing is left of it
            # even after SIGKILL. The same disk bus and CD-ROM as Nova's libvirt driver chooses on these machines.
            "-drive", f"if=none,id=root,snapshot=on,cache=unsafe,format={self.image_format},file={_escape(self.image)}",
            "-device", "virtio-blk-pci,drive=root,bootindex=1",
            "-drive", f"if=none,id=config,media=cdrom,readonly=on,format=raw,file={_escape(self.drive)}",
            *self.hardware.drive,
            # strict: only what has a bootindex is tried. No option ROM: the network is never booted from.
            "-boot", "strict=on",
            "-netdev", self._management(),
            "-device", f"virtio-net-pci,netdev=management,mac={MAC},romfile=",
            "-object", f"filter-dump,id=wire,netdev=management,file={_escape(self.wire)}",
            *(["-device", f"pcie-root-port,id={self.vip_bus}"] if self.vip_bus else []),
            # The amphora images of Octavia carry hw_rng_model=virtio.
            "-device", "virtio-rng-pci",
            "-chardev", f"file,id=console,path={_escape(self.console)}", "-serial", "chardev:console",
            "-chardev", f"file,id=reports,path={_escape(self.reports)}", *self.hardware.reporter,
            "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control",
        ]  # fmt: skip

    def _management(self) -> str:
        """Make the backend of the management card."""
        if self.link is not None:
            return f"tap,id=management,fd={self.link.tap}"
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:0-{_USER}:{port}" for port in sorted({self.http_port, agent.PORT}))
        # restrict=on: the guest reaches neither the host nor the world, only forwards lead in. ipv6=off: the network is
        # what network_data says, IPv4 with DHCP. Port 0: the kernel picks a free one, without a race.
        return f"user,id=management,restrict=on,ipv6=off,{forwards}"

    def _firmware_arguments(self) -> list[str]:
        if self.firmware is None:
            return []
        store = self.directory / "variables"
        flash = "if=pflash,unit={},format={},readonly={},file={}"
        code = flash.format(0, self.firmware.code_format, "on", _escape(self.firmware.code))
        return ["-drive", code, "-drive", flash.format(1, self.firmware.variables_format, "off", _escape(store))]


def _escape(path: Path) -> str:
    """Write a path as the value of a qemu option, where a comma is doubled."""
    return str(path.absolute()).replace(",", ",,")


class Machine:
    """A running qemu.

    :param drawing: what to run
    :raises HostError: qemu is not installed, or lacks the user network
    :raises MkimageError: qemu did not start
    """

    def __init__(self, drawing: Drawing, console: Console) -> None:
        self.drawing = drawing
        self.messages = drawing.directory / "qemu.log"
        if drawing.firmware is not None:
            shutil.copyfile(drawing.firmware.variables, drawing.directory / "variables")
        ours, theirs = socket.socketpair()
        with theirs:
            argv = drawing.arguments(theirs.fileno())
            console.command(argv)
            self.powered_on = time.monotonic()
            self._child = self._start(argv, theirs.fileno())
        self.monitor = Monitor(ours)
        try:
            self.monitor.handshake()
            self.ports = self._ports()
        except MkimageError as error:
            self.kill()
            raise self._explain(error) from error
        except BaseException:
            self.kill()
            raise

    def _start(self, argv: list[str], monitor: int) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        try:
            with self.messages.open("wb") as messages:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    env=process.environment(),
                    pass_fds=[monitor, *([self.drawing.link.tap] if self.drawing.link else [])],
                    # Neither the end of its monitor nor that of its streams ends qemu, and its option for this
                    # (-run-with exit-with-parent=on) is newer than any distribution that we run on.
                    preexec_fn=lambda: process.die_with(parent),  # noqa: PLW1509 (no threads here)
                    start_new_session=True,  # Ctrl-C is for us; we end qemu
                )
        except FileNotFoundError as error:
            hardware = self.drawing.hardware
            raise HostError(f"{hardware.qemu} is not installed", f"install the package {hardware.package}") from error

    def seconds(self) -> float:
        """Seconds since power-on."""
        return time.monotonic() - self.powered_on

    def ended(self) -> bool:
        """Has qemu ended by itself?"""
        return self._child.poll() is not None

    def ending(self) -> str:
        """Say how qemu ended, and what it printed."""
        code = self._child.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return f"qemu {how}{''.join(f': {line}' for line in self.tail()[-3:])}"

    def tail(self) -> list[str]:
        """Return the last lines that qemu itself printed."""
        return self.messages.read_text(errors="replace").splitlines()[-10:]

    def kill(self) -> None:
        """End qemu at once; there is nothing to save."""
        process.kill_group(self._child)
        self.monitor.close()

    def _ports(self) -> dict[tuple[int, int], int]:
        """Ports on 127.0.0.1 by IP version and port of the guest in its management network."""
        if self.drawing.link is not None:
            return dict(self.drawing.link.ports)
        return {(4, guest): host for guest, host in self.forwarded_ports().items()}

    def forwarded_ports(self, address: str = _USER, protocol: str = "TCP") -> dict[int, int]:
        """Ports on 127.0.0.1 by the guest's port.

        :param address: the guest's
        :param protocol: "TCP" or "UDP"
        """
        table = str(self.monitor.execute("human-monitor-command", **{"command-line": "info usernet"}))
        found = _FORWARD.findall(table)
        return {int(guest): int(host) for kind, host, to, guest in found if (kind, to) == (protocol, address)}

    def plug(self, network: vip.Network) -> dict[int, int]:
        """Plug a card of another network; TCP ports on 127.0.0.1 by the port of the VIP there.

        :raises MkimageError: qemu refused
        """
        network.plug(self.monitor, self.drawing.vip_bus)
        return self.forwarded_ports(network.vip)

    def _explain(self, error: MkimageError) -> MkimageError:
        """Why qemu did not start, from what it printed."""
        tail = self.tail()
        text = "\n".join(tail)
        if "'user' is not compiled" in text or ("'user'" in text and "netdev backend type" in text):
            return HostError("this qemu has no user network (libslirp)", "install a qemu with it", tail=tail)
        if "lock" in text:
            return MkimageError("the image is in use", "end the program that writes to it", tail=tail)
        return MkimageError(error.what, error.remedy, tail=tail)
