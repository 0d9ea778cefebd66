"""The stages of Red Hat's family on a small tree; programs of the guest are recorded, for there are none in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from make_request import make

from amphora_mkimage import packages
from amphora_mkimage.console import Console
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.request import Request
from amphora_mkimage.stages import cpu_pinning, fips, grub2, network_manager, redhat, selinux

STAGES = (grub2, network_manager, redhat, selinux)
ENTRY = """\
title Fedora Linux (6.11.4-301.fc44.x86_64) 44 (Cloud Edition)
version 6.11.4-301.fc44.x86_64
linux /vmlinuz-6.11.4-301.fc44.x86_64
initrd /initramfs-6.11.4-301.fc44.x86_64.img $tuned_initrd
options root=UUID=5d2ae3f8 ro rootflags=subvol=root net.ifnames=0 $tuned_params
grub_users $grub_users
grub_class fedora
"""


class RecordingGuest(NamespaceGuest):
    """File verbs for real; commands are only written down."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Console())
        self.commands: list[list[str]] = []

    def command(self, arguments: list[str]) -> str:
        self.commands.append(arguments)
        return ""


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingGuest]:
    files = {
        "etc/selinux/config": "# comment\nSELINUX=enforcing\n# more\nSELINUXTYPE=minimum",
        "etc/selinux/targeted/policy/policy.34": "",
        "etc/NetworkManager/system-connections/cloud.nmconnection": "",
        "etc/sysconfig/network-scripts/ifcfg-eth0": "",
        "etc/sysconfig/network-scripts/ifcfg-lo": "",
        "boot/loader/entries/0123-6.11.4-301.fc44.x86_64.conf": ENTRY,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "etc/dhcp").mkdir()
    made = RecordingGuest(tmp_path)
    monkeypatch.setattr(made, "chown", lambda owner, group, path: None)  # an ordinary user runs this, too
    yield made
    made.close()


def wanted(*argv: str, distribution: str = "fedora") -> Request:
    return make("-i", distribution, *argv)


@pytest.mark.parametrize("distribution", ["fedora", "centos", "rocky", "rhel", "debian", "ubuntu"])
def test_they_are_for_the_family_only(distribution: str) -> None:
    applies = {stage.applies(wanted(distribution=distribution)) for stage in STAGES}
    assert applies == {distribution not in ("debian", "ubuntu")}


@pytest.mark.parametrize("flag", [(), ("-m",), ("-y",), ("-m", "-y")])
def test_the_kernel_is_told_the_same_in_both_places(
    guest: RecordingGuest, tmp_path: Path, flag: tuple[str, ...]
) -> None:
    grub2.run(guest, wanted(*flag))
    entry = (tmp_path / "boot/loader/entries/0123-6.11.4-301.fc44.x86_64.conf").read_text()
    fields = dict(line.split(" ", 1) for line in entry.splitlines())
    assert fields["linux"] == "/boot/vmlinuz-6.11.4-301.fc44.x86_64"
    assert fields["initrd"] == "/boot/initramfs-6.11.4-301.fc44.x86_64.img"
    assert fields["options"].startswith("root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200 ")
    assert ("isolcpus=1-N" in fields["options"]) == ("-m" in flag)
    assert ("fips=1" in fields["options"]) == ("-y" in flag)
    assert (tmp_path / "etc/kernel/cmdline").read_text() == fields["options"] + "\n"
    assert fields["grub_class"] == "fedora"
    # What a shell makes of the defaults is what the entry says.
    defaults = (tmp_path / "etc/default/grub").read_text()
    assert defaults.count("GRUB_CMDLINE_LINUX=") == 1 + len(flag)
    assert fields["options"].endswith(grub2.kernel_options(wanted(*flag)))


def test_an_entry_that_is_right_stays_so(guest: RecordingGuest, tmp_path: Path) -> None:
    grub2.run(guest, wanted())
    (path,) = (tmp_path / "boot/loader/entries").iterdir()
    once = path.read_text()
    grub2.run(guest, wanted())
    assert path.read_text() == once


@pytest.mark.parametrize(("flag", "mode"), [((), "permissive"), (("-e",), "enforcing")])
def test_selinux(guest: RecordingGuest, tmp_path: Path, flag: tuple[str, ...], mode: str) -> None:
    selinux.run(guest, wanted(*flag))
    lines = (tmp_path / "etc/selinux/config").read_text().splitlines()
    assert [line for line in lines if line.startswith("SELINUX")] == [f"SELINUX={mode}", "SELINUXTYPE=targeted"]
    assert bool(guest.commands) == bool(flag)
    assert all(command[:3] == ["setsebool", "-N", "-P"] for command in guest.commands)


def test_network_manager_is_left_with_nothing_but_the_loopback(guest: RecordingGuest, tmp_path: Path) -> None:
    network_manager.run(guest, wanted())
    assert list((tmp_path / "etc/NetworkManager/system-connections").iterdir()) == []
    assert [path.name for path in (tmp_path / "etc/sysconfig/network-scripts").iterdir()] == ["ifcfg-lo"]
    text = "".join(path.read_text() for path in sorted((tmp_path / "etc/NetworkManager/conf.d").iterdir()))
    assert {"dns=none", "no-auto-default=*"} <= set(text.splitlines())


def test_other_places(guest: RecordingGuest, tmp_path: Path) -> None:
    redhat.run(guest, wanted())
    group = (tmp_path / "var/lib/octavia/haproxy-default-user-group.conf").read_text()
    assert group.split() == ["global", "group", "haproxy"]
    hook = tmp_path / "etc/dhcp/dhclient-enter-hooks"
    assert hook.stat().st_mode & 0o777 == 0o755
    assert "make_resolv_conf" in hook.read_text()
    assert ["systemctl", "disable", "haproxy.service"] in guest.commands


def test_fips(guest: RecordingGuest) -> None:
    assert fips.applies(wanted("-y"))
    assert not fips.applies(wanted())
    assert "crypto-policies-scripts" in packages.wanted(wanted("-y"))
    fips.run(guest, wanted("-y"))
    assert guest.commands == [["update-crypto-policies", "--no-reload", "--set", "FIPS"]]


@pytest.mark.parametrize("place", ["etc/tuned", "etc/tuned/profiles"])
def test_tuned_finds_its_profile(guest: RecordingGuest, place: str) -> None:
    """Until version 2.22 in the one directory, then in the other only."""
    (guest.root / place).mkdir(parents=True)
    cpu_pinning.run(guest, make("-i", "fedora", "-m"))
    profile = guest.root / place / "amphora"
    assert "script=${i:PROFILE_DIR}/script.sh" in (profile / "tuned.conf").read_text().splitlines()
    assert (profile / "script.sh").stat().st_mode & 0o777 == 0o755
    assert sorted(guest.root.glob("etc/tuned/**/tuned.conf")) == [profile / "tuned.conf"]
    assert "amphora" in guest.read_file("/etc/tuned/active_profile").decode().split()
