"""``amphora-mkimage boot``: start a copy-on-write view of an image in qemu, and tell whether it runs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage import accelerator, guardian, settings, streams
from amphora_mkimage.architecture import ALIASES
from amphora_mkimage.boot import agent, config_drive, firmware, haproxy, hardware, router, verdict
from amphora_mkimage.boot.hardware import HARDWARE, Hardware
from amphora_mkimage.boot.machine import Drawing, Machine, image_architecture, image_format
from amphora_mkimage.boot.management import NETWORKS, Kind, Management
from amphora_mkimage.boot.session import Control, Session, be_the_controller
from amphora_mkimage.console import Console
from amphora_mkimage.errors import ExitStatus, InterruptedBuildError

#: Under emulation a boot takes one to four minutes on a quiet host.
DEFAULT_TIMEOUT = 900.0
#: MiB; the flavor that devstack makes for amphorae has as much.
DEFAULT_MEMORY = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``boot``."""
    parser.add_argument("image", metavar="IMAGE", type=Path, help="qcow2, raw or vhd file; never written to")
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        choices=settings.ARCHITECTURES,
        help="architecture of the image (default: what the type of its root partition says, else amd64)",
    )
    parser.add_argument(
        "--uefi",
        action="store_true",
        help="boot with UEFI firmware (OVMF) instead of the BIOS; arm64 and armhf have nothing else",
    )
    parser.add_argument(
        "--haproxy-config",
        metavar="FILE",
        type=Path,
        default=haproxy.DEFAULT_CONFIG,
        help="also run the guest's haproxy with this configuration, in which a frontend has to listen for plain HTTP on"
        " every address (default: a frontend on port 80 with a fixed answer, and only where there is no amphora agent)",
    )
    parser.add_argument(
        "--network",
        choices=[kind.value for kind in Kind],
        default=Kind.USER.value,
        help="management network of the guest. user: DHCP of qemu's user network, controller in the same network. The"
        " others stand behind a router, with MTU 1450: static addresses (IPv4 and IPv6), dhcp (IPv4), slaac (IPv6),"
        " stateful (DHCPv6), dual (dhcp and slaac) (default: user)",
    )
    parser.add_argument(
        "--reboot",
        action="store_true",
        help="also switch the guest off and on again, and then reset it, while it has a load balancer, which has to be"
        " there again each time",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=DEFAULT_TIMEOUT,
        help=f"give up after this time from power-on, and from each restart (default: {DEFAULT_TIMEOUT:.0f})",
    )
    parser.add_argument(
        "--memory",
        metavar="MIB",
        type=_whole,
        default=DEFAULT_MEMORY,
        help=f"memory of the guest (default: {DEFAULT_MEMORY})",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--console", action="store_true", help="show the serial console while it boots")
    parser.epilog = (
        "Exit status: 0 it runs, 1 something is wrong, 2 this host cannot boot it, 3 bad value, 130 interrupted."
    )


def run(arguments: argparse.Namespace, console: Console, control: Control = be_the_controller) -> ExitStatus:
    """Boot the image and print the result on standard output.

    Must be called in the main thread (see :mod:`amphora_mkimage.boot.machine`); an interrupt may raise anything in it.

    :param control: what is done with an amphora agent that answers
    :raises MkimageError: bad value, or this host cannot do it
    """
    network = NETWORKS[Kind(arguments.network)]
    config = haproxy.read_config(arguments.haproxy_config)
    http_port = haproxy.http_port(config, network.addresses)
    found = image_format(arguments.image, console)

    def boot(link: router.Link | None) -> ExitStatus:
        with guardian.temporary() as directory:
            return _boot(arguments, Plan(found, network, config, http_port, directory, link), console, control)

    return router.behind(network, sorted({http_port, agent.PORT}), boot) if network.routed else boot(None)


@dataclass(frozen=True)
class Plan:
    """What was found out before a boot.

    :param image_format: one of :data:`amphora_mkimage.boot.machine.FORMATS`
    :param config: haproxy's, and the port on which it answers
    :param directory: for files of this boot
    :param link: None where there is no router
    """

    image_format: str
    network: Management
    config: str
    http_port: int
    directory: Path
    link: router.Link | None


def _boot(arguments: argparse.Namespace, plan: Plan, console: Console, control: Control) -> ExitStatus:
    directory, network = plan.directory, plan.network
    machine_kind = _hardware(arguments, plan.image_format, directory, console)
    kind = machine_kind.firmware_kind(uefi=arguments.uefi)
    uefi = firmware.find(hardware=machine_kind) if kind == "uefi" else None
    chosen = accelerator.choose(console) if machine_kind.native else hardware.foreign(machine_kind)
    console.output(str(chosen), keep=False)
    console.note(f"booting {arguments.image} ({verdict.FIRMWARE[kind]}, {_how(chosen)})")
    identity = agent.make_identity(directory, console)
    drive = directory / "config.iso"
    files = {config_drive.HAPROXY_CONFIG: plan.config, **identity.files(network)}
    if arguments.haproxy_config != haproxy.DEFAULT_CONFIG:
        files[config_drive.OWN_CONFIG] = ""
    config_drive.write(drive, identity.amphora_id, files, network, console)
    drawing = Drawing(
        image=arguments.image,
        image_format=plan.image_format,
        drive=drive,
        directory=directory,
        accelerator=machine_kind.accelerator_arguments(chosen),
        memory=arguments.memory,
        firmware=uefi,
        http_port=plan.http_port,
        hardware=machine_kind,
        link=plan.link,
    )
    machine = Machine(drawing, console)
    session = Session(machine, network, arguments.timeout, console, stream=arguments.console, reboot=arguments.reboot)
    try:
        outcome = session.observe(identity, control)
    except KeyboardInterrupt as interrupt:
        what = f"interrupted {machine.seconds():.0f} s after power-on; the guest's serial console last said"
        raise InterruptedBuildError(what, tail=session.last_lines() or ["(nothing)"]) from interrupt
    finally:
        machine.kill()
    result = verdict.Verdict(
        image=arguments.image,
        image_format=plan.image_format,
        firmware=kind,
        accelerator="kvm" if chosen.kvm else "tcg",
        timeout=arguments.timeout,
        outcome=outcome,
        expected=verdict.expected_answer(arguments.haproxy_config),
        network=network,
        reboot=arguments.reboot,
    )
    return _finish(result, drawing.console, as_json=arguments.json)


def _how(chosen: accelerator.Accelerator) -> str:
    """Say how the guest is run; what qemu printed when KVM was tried is for ``check``."""
    if chosen.kvm:
        return "KVM"
    why, more, _ = chosen.reason.partition(": ")
    return f"emulated: {why}{'; `amphora-mkimage check` shows why' if more else ''}"


def _hardware(arguments: argparse.Namespace, image_format: str, directory: Path, console: Console) -> Hardware:
    """Choose the machine that the image is for."""
    said = arguments.arch and ALIASES.get(arguments.arch, arguments.arch)
    return HARDWARE[said or image_architecture(arguments.image, image_format, directory, console) or "amd64"]


def _finish(result: verdict.Verdict, serial: Path, *, as_json: bool) -> ExitStatus:
    """Print the result; keep the serial console when something is wrong."""
    if result.problems() and serial.exists():
        handle, kept = tempfile.mkstemp(prefix="amphora-mkimage-console-", suffix=".log")
        os.close(handle)
        shutil.copyfile(serial, kept)
        result = verdict.Verdict(**{**vars(result), "console_log": kept})
    text = json.dumps(result.as_json(), indent=2) if as_json else result.as_text()
    streams.result(text.rstrip("\n"))
    return ExitStatus.FAILED if result.problems() else ExitStatus.OK


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 64:
        raise argparse.ArgumentTypeError(f"{text} is too little memory for a guest (at least 64 MiB)")
    return value
