"""The checks that a build runs on its own tree: what they read, what fails it, and with which words."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_request import make
from verify_spoils import Spoil, append, both, chmod, remove, replace, write
from verify_tree import KERNEL, TreeBuilder, amphora, check_tar

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.verify import in_build
from amphora_mkimage.verify.checks import CHECKS
from amphora_mkimage.verify.guest_tree import GuestTree
from amphora_mkimage.verify.tar_tree import TarTree
from amphora_mkimage.verify.tree import Tree, TreeError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own the tree")


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


def checked(tree: TreeBuilder, directory: Path, shown: io.StringIO, *arguments: str, **environ: str) -> dict[str, int]:
    directory.mkdir()
    console = Console(shown)
    guest = NamespaceGuest(tree.unpack(directory), console)
    try:
        return in_build.check(guest, make("-k", f"linux-image-{KERNEL}", *arguments, **environ), console)
    finally:
        guest.close()


@pytest.mark.parametrize("arguments", [("-t", "qcow2"), ("-t", "tar"), ("-t", "tar,raw", "-s", "3")])
def test_a_complete_amphora_passes(arguments: tuple[str, ...], shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    if arguments[1] == "tar":
        tree.remove("/boot/grub/grub.cfg")  # written for disks only
    counts = checked(tree, tmp_path / "tree", shown, *arguments)
    assert set(counts) <= {"pass", "not-applicable"}, shown.getvalue()
    assert sum(counts.values()) == sum(check.cheap for check in CHECKS)
    assert counts["pass"] > 40


def _no_ssh(tree: TreeBuilder) -> None:
    remove("/usr/sbin/sshd", "/etc/systemd/system/multi-user.target.wants/ssh.service")(tree)
    replace("/var/lib/dpkg/status", "Package: openssh-server\n", "Package: x\n")(tree)


def _without_agent(tree: TreeBuilder) -> None:
    for path in set(tree.files) - set(amphora(agent=False).files):
        del tree.files[path]


@pytest.mark.parametrize(
    ("arguments", "spoil"),
    [
        (("-n",), _no_ssh),
        (("--no-agent",), _without_agent),
        (("--root-password-hash", "$6$saltsalt$" + "x" * 86),
            write("/etc/shadow", "root:$6$saltsalt$x:20000::::::\n", 0o640)),
    ],
)  # fmt: skip
def test_what_was_asked_for_is_expected(
    arguments: tuple[str, ...], spoil: Spoil, shown: io.StringIO, tmp_path: Path
) -> None:
    tree = amphora()
    spoil(tree)
    assert "fail" not in checked(tree, tmp_path / "asked", shown, *arguments)
    with pytest.raises(MkimageError):
        checked(tree, tmp_path / "unasked", shown)


def test_the_agents_directories_are_roots(shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    directory = tree.unpack(tmp_path / "tree")
    os.chown(directory / "etc/octavia", 1000, 1000)
    guest = NamespaceGuest(directory, Console(shown))
    with pytest.raises(MkimageError, match="/etc/octavia belongs to user 1000"):
        in_build.check(guest, make("-k", f"linux-image-{KERNEL}"), Console(shown))
    guest.close()


def test_an_own_images_authorities_are_its_owners(shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    write("/usr/local/share/ca-certificates/company.crt", "x")(tree)
    with pytest.raises(MkimageError, match=r"certificate authorities.*company\.crt"):
        checked(tree, tmp_path / "published", shown)
    assert checked(tree, tmp_path / "own", shown, DIB_LOCAL_IMAGE=__file__)["warn"] == 1


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (chmod("/etc/octavia", 0o777), "everybody in the amphora can write /etc/octavia", "chmod o-w"),
        (write("/etc/cloud/cloud-init.disabled"), "/etc/cloud/cloud-init.disabled exists", "remove it"),
        (append("/boot/grub/grub.cfg", 'set superusers="a"\n'), "waits for a password", "remove GRUB's users"),
        (remove(f"/boot/vmlinuz-{KERNEL}"), f"vmlinuz-{KERNEL} does not exist", "run update-grub"),
        (replace(f"/usr/lib/modules/{KERNEL}/modules.dep", "/brd.ko", "/x.ko"), "has no module brd", "(-k)"),
    ],
)
def test_a_failure_fails_the_build(spoil: Spoil, what: str, remedy: str, shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    with pytest.raises(MkimageError) as caught:
        checked(tree, tmp_path / "tree", shown)
    assert caught.value.what.startswith("the image is not a complete amphora: ")
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    with pytest.raises(MkimageError) as caught:
        checked(tree, tmp_path / "own", shown, DIB_LOCAL_IMAGE=__file__)
    assert caught.value.remedy.startswith("in your image (DIB_LOCAL_IMAGE): ")


def test_other_failures_are_told_too(shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    both(remove("/usr/sbin/haproxy"), write("/etc/cloud/a\x1b[2J.cfg"), chmod("/etc/octavia", 0o777))(tree)
    write("/etc/\x1b[2J", "", 0o666)(tree)
    with pytest.raises(MkimageError) as caught:
        checked(tree, tmp_path / "tree", shown)
    told = "\n".join((caught.value.what, *caught.value.tail))
    assert "/usr/sbin/haproxy" in told
    assert "/etc/octavia" in told
    assert "\x1b" not in told


def test_a_warning_is_a_note(shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    write("/etc/modprobe.d/cis.conf", "install sctp /bin/true\n")(tree)
    counts = checked(tree, tmp_path / "tree", shown)
    assert counts["warn"] == 1
    assert "/etc/modprobe.d/cis.conf blocks sctp" in shown.getvalue()


# --- the tree that is read through a guest's verbs -------------------------------------------------------------------


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[NamespaceGuest]:
    (tmp_path / "guest").mkdir()
    guest = NamespaceGuest(tmp_path / "guest", Console(io.StringIO()))
    yield guest
    guest.close()


def test_the_trees_agree(tmp_path: Path) -> None:
    """What a tar says of an amphora, its unpacked tree says as well."""
    builder = amphora()
    (tmp_path / "tree").mkdir()
    guest = NamespaceGuest(builder.unpack(tmp_path / "tree"), Console(io.StringIO()))
    archive = TarTree(builder.tar(tmp_path / "image.tar"))

    def all_of(tree: Tree) -> dict[str, object]:
        return {
            path: (entry.mode, entry.uid, entry.size if entry.is_file else 0, entry.target)
            for directory in ("/usr", "/etc", "/var", "/boot")
            for path, entry in tree.walk(directory)
        }

    assert all_of(GuestTree(guest)) == all_of(archive)
    assert GuestTree(guest).read("/etc/fstab", offset=6, size=8) == archive.read("/etc/fstab", offset=6, size=8)
    archive.close()
    guest.close()


def test_a_hostile_tree_is_not_followed_nor_waited_for(guest: NamespaceGuest) -> None:
    (guest.root / "link").symlink_to("/etc/passwd")
    (guest.root / "up").symlink_to("../../../../etc/passwd")
    os.mkfifo(guest.root / "pipe")
    (guest.root / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    (guest.root / "large").write_bytes(b"")
    os.truncate(guest.root / "large", 1 << 40)
    tree = GuestTree(guest)
    assert not tree.exists("/link")
    assert not tree.exists("/up")
    assert tree.text("/pipe") == ""
    assert set(tree.listdir("/")) == {"link", "up", "pipe", "caf\\xe9", "large"}
    with pytest.raises(TreeError, match="too large"):
        tree.text("/large")
    with pytest.raises(TreeError):
        tree.read("/caf\\xe9")


def test_a_file_that_shrinks_is_an_error(guest: NamespaceGuest) -> None:
    (guest.root / "file").write_bytes(b"four")
    tree = GuestTree(guest)
    assert tree.is_file("/file")
    (guest.root / "file").write_bytes(b"")
    with pytest.raises(TreeError, match="ends early"):
        tree.read("/file")


def test_the_whole_and_the_half_say_the_same(shown: io.StringIO, tmp_path: Path) -> None:
    tree = amphora()
    write("/etc/cloud/cloud-init.disabled")(tree)
    whole = check_tar(tree, tmp_path / "image.tar")["services.cloud-init"].findings
    with pytest.raises(MkimageError) as caught:
        checked(tree, tmp_path / "tree", shown, "-t", "tar")
    assert any(finding.detail in caught.value.what for finding in whole)
