"""What bootloaders' configurations, fstab and kernel files say."""

from __future__ import annotations

import gzip

import pytest
from verify_tree import GRUB_CFG, KERNEL, UUID, bzimage, cpio, initramfs

from amphora_mkimage.verify import boot_config, fstab, kernel_file

FEDORA_GRUB = """\
load_env -f ${config_directory}/grubenv
search --no-floppy --fs-uuid --set=boot c1a2b3c4-0000-4000-8000-000000000001
search --no-floppy --fs-uuid --set=root c1a2b3c4-0000-4000-8000-000000000002
if [ -s $prefix/grubenv ]; then
  load_env
fi
insmod blscfg
blscfg
"""
BLS = """\
title Fedora Linux (6.14.0-63.fc42.x86_64) 42 (Cloud Edition)
version 6.14.0-63.fc42.x86_64
linux /vmlinuz-6.14.0-63.fc42.x86_64
initrd /initramfs-6.14.0-63.fc42.x86_64.img $tuned_initrd
options $kernelopts console=ttyS0
grub_users $grub_users
"""
NESTED = """\
submenu 'Advanced options' $menuentry_id_option 'x' {
\tmenuentry 'with Linux 1' {
\t\tsearch --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 AB12-CD34
\t\tlinuxefi ($root)/vmlinuz-1 root=UUID=x ro \\
\t\t\tquiet
\t\tinitrdefi ($root)/microcode.img ($root)/initrd-1
\t}
\tmenuentry 'memtest' { linux16 /memtest86+.bin ; }
}
menuentry 'it'\\''s Windows' {
\tchainloader +1
}
"""


def test_grub() -> None:
    config = boot_config.parse_grub(GRUB_CFG, "grub.cfg")
    (entry,) = config.entries
    assert entry.title == "Debian GNU/Linux"
    assert entry.kernel == f"/boot/vmlinuz-{KERNEL}"
    assert entry.initrds == (f"/boot/initrd.img-{KERNEL}",)
    assert entry.filesystem_uuids == (UUID,)
    assert entry.option("root") == "LABEL=cloudimg-rootfs"
    assert entry.option("console") == "ttyS0,115200"
    assert entry.option("isolcpus") is None


def test_grub_nested_continued_and_with_device() -> None:
    config = boot_config.parse_grub(NESTED, "grub.cfg")
    first, memtest = config.entries
    assert first.kernel == "/vmlinuz-1"
    assert first.initrds == ("/microcode.img", "/initrd-1")
    assert first.options == "root=UUID=x ro quiet"
    assert first.filesystem_uuids == ("AB12-CD34",)
    assert memtest.kernel == "/memtest86+.bin"


def test_grub_that_leaves_it_to_bls() -> None:
    config = boot_config.parse_grub(FEDORA_GRUB, "grub.cfg")
    assert config.entries == ()
    assert config.blscfg
    assert len(config.search) == 2


def test_grub_stub_on_the_esp() -> None:
    config = boot_config.parse_grub(f"search.fs_uuid {UUID} root\nconfigfile $prefix/grub.cfg\n", "stub")
    assert config.search == (UUID,)
    assert config.config_files == ("$prefix/grub.cfg",)


@pytest.mark.parametrize(
    "text", ["", "}\n}\n", "menuentry 'a' {", "linux", "menuentry\nlinux\n}", "search --fs-uuid", "'"]
)
def test_grub_rubbish(text: str) -> None:
    assert boot_config.parse_grub(text, "grub.cfg").entries == ()


def test_bls() -> None:
    variables = boot_config.parse_environment_block("# GRUB Environment Block\nkernelopts=root=UUID=abc ro\n####")
    entry = boot_config.parse_bls(BLS, "x.conf", variables)
    assert entry is not None
    assert entry.initrds == ("/initramfs-6.14.0-63.fc42.x86_64.img",)
    assert entry.options == "root=UUID=abc ro console=ttyS0"
    assert boot_config.parse_bls("title x\n", "x.conf", {}) is None


def test_extlinux() -> None:
    text = "DEFAULT a\nLABEL a\n  KERNEL /boot/vmlinuz\n  APPEND root=/dev/vda initrd=/boot/i1,/boot/i2 quiet\n"
    text += "LABEL b\nlinux ../v\n"
    one, two = boot_config.parse_extlinux(text, "extlinux.conf")
    assert one.initrds == ("/boot/i1", "/boot/i2")
    assert one.option("root") == "/dev/vda"
    assert two.kernel == "../v"


def test_fstab() -> None:
    text = "# c\nLABEL=cloudimg-rootfs / ext4 defaults 0 1\nUUID=AB /mnt/a\\040b xfs ro,noatime\nbroken\n\n"
    root, other = fstab.parse_fstab(text)
    assert root.options == ("defaults",)
    assert other.mountpoint == "/mnt/a b"


FACTS = {"LABEL": "root", "UUID": "ABCD-1234", "PART_ENTRY_UUID": "486cb924-01", "PART_ENTRY_NAME": "p.lxroot"}


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        ("LABEL=root", "/dev/sda1"),
        ('LABEL="root"', "/dev/sda1"),
        ("UUID=abcd-1234", "/dev/sda1"),
        ("PARTUUID=486CB924-01", "/dev/sda1"),
        ("PARTLABEL=p.lxroot", "/dev/sda1"),
        ("/dev/vda1", "/dev/sda1"),
        ("/dev/xvda1", "/dev/sda1"),
        ("/dev/mapper/my--group-root", "/dev/my-group/root"),
    ],
)
def test_specs_that_name_a_filesystem(spec: str, device: str) -> None:
    assert fstab.names(spec, FACTS, device)


@pytest.mark.parametrize("spec", ["LABEL=other", "LABEL=", "UUID=", "UUID=ABCD", "/dev/vda2", "tmpfs", "TAG=root"])
def test_specs_that_do_not(spec: str) -> None:
    assert not fstab.names(spec, FACTS, "/dev/sda1")


def test_kernels_are_recognised() -> None:
    assert kernel_file.kernel_kind(bzimage(KERNEL)) == ("bzImage", KERNEL)
    assert kernel_file.kernel_kind(bytes(56) + b"ARM\x64" + bytes(64))[0] == "arm64 Image"
    assert kernel_file.kernel_kind(b"MZ" + bytes(34) + b"\x18\x28\x6f\x01" + bytes(64))[0] == "arm zImage"
    assert kernel_file.kernel_kind(gzip.compress(b"x"))[0] == "gzip image"
    assert kernel_file.kernel_kind(b"MZ\0\0zimg" + bytes(100))[0] == "EFI zboot image"
    for rubbish in (b"", b"MZ", bytes(1024), b"#!/bin/sh\n" * 100):
        assert kernel_file.kernel_kind(rubbish) == ("", "")


def _segments(content: bytes) -> list[tuple[int, str]]:
    return list(kernel_file.segments(lambda offset, size: content[offset : offset + size], len(content)))


def test_initramfs_segments() -> None:
    microcode = cpio("kernel/x86/microcode/GenuineIntel.bin")
    content = initramfs(KERNEL)
    assert _segments(content) == [(0, "cpio"), (len(microcode), "gzip")]
    assert gzip.decompress(content[len(microcode) :]).startswith(b"070701")
    padded = microcode + bytes(4096) + b"\x28\xb5\x2f\xfd rest"
    assert _segments(padded) == [(0, "cpio"), (len(microcode) + 4096, "zstd")]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh", bytes(5000), b"07070" * 40, b"070701" + b"F" * 104 + bytes(20)])
def test_initramfs_rubbish_ends(content: bytes) -> None:
    assert len(_segments(content)) <= 1
