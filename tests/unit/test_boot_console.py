"""Reading the serial console: lines, prompts, and the ends that a boot can come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from amphora_mkimage.boot import death
from amphora_mkimage.boot.text import Follower, clean

#: What was really printed, and what must be found in it.
DEATHS = {
    b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\nBooting from Hard Disk...\r\n"
    b"Boot failed: not a bootable disk\r\n\r\nNo bootable device.\r\n": "the BIOS found no boot loader",
    b'\x1b[2J\x1b[01;01HBdsDxe: failed to load Boot0001 "UEFI Misc Device": Not Found\r\n'
    b"\x1b[2J\x1b[01;01H\x1b[01;01HUEFI Interactive Shell v2.2\r\n": "the UEFI firmware found no boot loader",
    b"Trying to load:  from: /pci@800000020000000/scsi@0 ... \r\nE3404: Not a bootable device!\r\n"
    b"E3407: Load failed\r\n\r\nReady! \r\n0 > ": "Open Firmware found no boot loader",
    b"GRUB loading.\r\nWelcome to GRUB!\r\n\r\nerror: no such device: 1111.\r\n"
    b"Entering rescue mode...\r\ngrub rescue> ": "rescue prompt",
    b"\x1b[2J\x1b[01;01H                  GNU GRUB  version 2.12\x1b[05;01Hgrub> ": "it has no usable grub.cfg",
    b"[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n": (
        "the kernel panicked: VFS: Unable to mount root fs on unknown-block(0,0)"
    ),
    b"ALERT!  LABEL=nope does not exist.  Dropping to a shell!\r\n": "the initramfs gave up",
    b"\r\nBusyBox v1.37.0 (Debian) built-in shell (ash)\r\nEnter 'help'\r\n\r\n(initramfs) ": "the initramfs gave up",
    b"\r\nEntering emergency mode. Exit the shell to continue.\r\n": "dracut's initramfs gave up",
    b'You are in emergency mode. After logging in, type "journalctl -xb"\r\n': "systemd went into emergency mode",
    b"[  9.9] reboot: System halted\r\n": "the guest halted itself",
}
#: Lines of good boots that look dangerous.
HARMLESS = [
    b"Booting from Hard Disk...\r\nGRUB loading.\r\nWelcome to GRUB!\r\n",
    b"error: file `/boot/grub/x86_64-efi/bli.mod' not found.\r\n",
    b'BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)\r\n',
    b"[    0.0] Command line: root=LABEL=cloudimg-rootfs panic=10\r\n",
    b"[    8.0] systemd[1]: Reached target emergency.target.\r\n",
    b"Debian GNU/Linux 13 amphora ttyS0\r\n\r\namphora login: ",
]


def follow(path: Path, data: bytes, size: int) -> death.Death | None:
    """What is found in data that arrives in pieces of a size."""
    follower = Follower(path)
    for at in range(0, len(data), size):
        with path.open("ab") as file:
            file.write(data[at : at + size])
        found = death.find(follower.lines(), follower.pending)
        if found:
            return found
    return None


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("data", "what"), DEATHS.items(), ids=DEATHS.values())
def test_an_end_is_recognised(tmp_path: Path, data: bytes, what: str, size: int) -> None:
    found = follow(tmp_path / "console", data, size)
    assert found is not None
    assert what in found.what


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("data", HARMLESS)
def test_a_good_boot_is_no_end(tmp_path: Path, data: bytes, size: int) -> None:
    assert follow(tmp_path / "console", data, size) is None


def test_a_getty_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"Debian GNU/Linux 13 amp ttyS0\r\n\r\namp login: ")
    follower = Follower(path)
    follower.lines()
    assert death.is_login(follower.pending)
    assert not death.is_login("sshd: login: root")


def test_lines_arrive_whole_and_once(tmp_path: Path) -> None:
    path = tmp_path / "console"
    follower = Follower(path)
    assert follower.lines() == []  # not there yet
    path.write_bytes("one\r\ntw\u00f6".encode()[:-1])
    assert follower.lines() == ["one"]
    with path.open("ab") as file:
        file.write("\u00f6\r\n\r\nthree".encode()[1:])
    assert (follower.lines(), follower.pending) == (["tw\u00f6"], "three")
    assert follower.lines() == []


def test_a_guest_that_never_ends_a_line_fills_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"x" * 1_000_000)
    follower = Follower(path)
    assert follower.lines() == []
    assert len(follower.pending) < 10_000


def test_what_a_terminal_would_obey_is_removed() -> None:
    assert clean("\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b(Bplain\x00\x7f") == "red plain"
    assert clean("a\tb\nc") == "a\tb\nc"


def test_a_prompt_from_before_a_restart_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_text("amphora login: ")
    follower = Follower(path)
    assert (follower.lines(), follower.pending) == ([], "amphora login: ")
    follower.forget()
    assert (follower.lines(), follower.pending) == ([], "")
    path.write_text(path.read_text() + "SeaBIOS\n")
    assert follower.lines() == ["SeaBIOS"]
