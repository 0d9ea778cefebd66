"""The appliance guest: the same image as in a namespace, and the right words when something fails in it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import guest_builds
import pytest
import tree_compare

from amphora_mkimage import request as requests
from amphora_mkimage import settings
from amphora_mkimage.console import Console
from amphora_mkimage.disk import layout
from amphora_mkimage.disk.bootloader import DEBIAN
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.guest import appliance_network, userns
from amphora_mkimage.guest.appliance import ApplianceBuild
from amphora_mkimage.guest.appliance_guest import ApplianceGuest
from amphora_mkimage.guest.namespace import GUEST_ENVIRONMENT, NamespaceGuest
from amphora_mkimage.request import Request
from amphora_mkimage.verify.watchdog import _own_qemus

# --- the same image both ways -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def request_() -> Request:
    return requests.make(settings.resolve({"base_os": "debian-minimal"}, {}), {}, print)


@pytest.fixture(scope="module")
def both(request_: Request, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """One image built in either guest: a tar of the namespace's tree, one of the appliance's, and its disk."""
    work = tmp_path_factory.mktemp("both")
    console = Console(io.StringIO(), (work / "log").open("ab", buffering=0))
    material = guest_builds.prepare(request_, work, cache_dir, console)
    _, namespace = guest_builds.in_namespace(request_, material, work, console)
    disk, appliance = guest_builds.in_appliance(request_, material, work, console)
    return namespace, appliance, disk


@pytest.mark.slow
def test_both_guests_make_the_same_tree(both: tuple[Path, Path, Path]) -> None:
    namespace, appliance, _ = (tree_compare.read_tar(path) if path.suffix == ".tar" else {} for path in both)
    assert tree_compare.unexplained(namespace, appliance, ()) == ([], [])
    # They agree on something: what packages and stages set is in both.
    assert appliance["/usr/bin/sudo"].mode == 0o4755
    assert dict(appliance["/usr/bin/tcpdump"].xattrs).keys() == {"security.capability"}
    assert appliance["/etc/shadow"].owner[1] != 0
    assert {"/etc/sysctl.d", "/boot/grub/grub.cfg", "/var/lib/octavia/ping-wrapper.sh"} <= appliance.keys()
    assert "/usr/sbin/policy-rc.d" not in appliance
    assert not [path for path in appliance if path.startswith(("/run/", "/tmp/", "/dev/", "/lost+found"))]


@pytest.mark.slow
def test_the_disk_of_the_appliance_is_whole(both: tuple[Path, Path, Path]) -> None:
    disk = both[2]
    root, esp = "?offset=69206016", "@@2M"  # after 1 MiB of table, 1 MiB for BIOS, 64 MiB of ESP
    assert disk.stat().st_size == guest_builds.SIZE_GIB * layout.GIB
    assert disk.stat().st_blocks * 512 < disk.stat().st_size // 2  # unused blocks were given back
    checked = subprocess.run(["e2fsck", "-f", "-n", f"{disk}{root}"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    header = subprocess.check_output(["dumpe2fs", "-h", f"{disk}{root}"], text=True, stderr=subprocess.DEVNULL)
    assert guest_builds.UUID in header
    assert "cloudimg-rootfs" in header
    assert "needs_recovery" not in header
    assert b"GRUB" in disk.read_bytes()[:512]
    listed = subprocess.check_output(["mdir", "-/", "-b", "-i", f"{disk}{esp}", "::"], text=True)
    assert {"::/EFI/BOOT/BOOTX64.EFI", "::/EFI/BOOT/grubx64.efi", "::/EFI/debian/grub.cfg"} <= set(listed.split())
    stub = subprocess.check_output(["mtype", "-i", f"{disk}{esp}", "::/EFI/debian/grub.cfg"], text=True)
    assert guest_builds.UUID in stub
    assert sorted(path.name for path in disk.parent.iterdir()) == ["disk.raw", "offer.raw", "tar.raw"]
    assert list(_own_qemus()) == []


@pytest.mark.slow
def test_a_disk_that_was_made_in_the_appliance_boots(built, run_cli, tmp_path: Path) -> None:
    console = Console(io.StringIO())
    with guest_builds.appliance(built.tar, tmp_path / "appliance", console, size_gib=3) as build:
        build.install_bootloader(DEBIAN, "debian")
        disk = build.finish()
    for firmware in ([], ["--uefi"]):
        done = run_cli("boot", "--timeout", "1800", disk, *firmware, timeout=2000)
        assert done.returncode == 0, done.stdout + done.stderr


# --- one appliance with next to nothing in it, in the order in which things get worse -------------------------------

PROGRAMS = ("bash", "cat", "dd", "env", "false", "id", "ls", "setsid", "sh", "sleep")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApplianceBuild, Console, Path]]:
    work = tmp_path_factory.mktemp("tiny")
    base = guest_builds.tiny_base(work / "base.tar", PROGRAMS)
    (work / "offer").mkdir()
    (work / "offer/file").write_bytes(b"of the host")
    console = Console(io.StringIO(), io.BytesIO())
    with guest_builds.appliance(base, work / "appliance", console, offer=work / "offer", network=True) as build:
        yield build, console, base


def use(guest: ApplianceGuest | NamespaceGuest) -> list[object]:
    """Every verb, also where it is easy to differ; what each gave, or that it failed."""
    answers: list[object] = []

    def ask(verb: str, *arguments: object) -> None:
        try:
            answers.append((verb, arguments, getattr(guest, verb)(*arguments)))
        except (MkimageError, OSError):
            answers.append((verb, arguments, "failed"))

    ask("mkdir_p", "/v/a/b")
    ask("mkdir_p", "/v/a/b")
    ask("write", "/v/file", b"one\n")
    ask("write_append", "/v/file", b"\xfftwo")
    ask("write_append", "/v/new", b"x" * 5_000_000)  # more than a message of libguestfs holds
    ask("read_file", "/v/new")
    ask("read_file", "/v/file")
    ask("ln_sf", "a", "/v/link")
    ask("ln_sf", "file", "/v/link")  # not into the directory that it leads to
    ask("ln_sf", "/v/a", "/v/absolute")
    ask("ln_sf", "nowhere", "/v/dangling")
    ask("write", "/v/absolute/inside", b"")
    ask("chmod", 0o4750, "/v/file")
    ask("chown", 12, 34, "/v/absolute")
    ask("mv", "/v/new", "/v/moved")
    ask("mv", "/v/absent", "/v/moved")
    ask("truncate", "/v/moved")
    ask("truncate", "/v/absent")
    for path in ("/v", "/v/file", "/v/link", "/v/absolute", "/v/dangling", "/v/absent", "/v/file/x"):
        for verb in ("exists", "is_file", "is_dir", "is_symlink", "readlink", "ls", "find", "read_file"):
            ask(verb, path)
    for pattern in ("/v/*", "/v/a*", "/v/?ile", "/v/absent", "/v/absent*", "/v/[fm]*", "/v/absolute/*"):
        ask("glob_expand", pattern)
    ask("write", "/v/.hidden", b"")
    ask("glob_expand", "/v/*")
    ask("glob_expand", "/v/.[!.]*")
    ask("rm_f", "/v/absent")
    ask("rm_f", "/v/dangling")
    ask("rm_f", "/v/absent/deep")
    ask("rm_rf", "/v/absolute")  # the link, not where it leads
    ask("rm_rf", "/v/absent")
    ask("find", "/v")
    ask("command", ["cat", "/v/file"])
    ask("command", ["false"])
    ask("command", ["no-such-program"])
    ask("command", ["sh", "-c", 'printf "%s\\n" "$1" "$2"', "sh", "a  'b\"$c\\", ""])
    ask("command", ["sh", "-c", "cat; id -u; umask; echo to-stderr >&2; ls /dev /dev/fd/0 /dev/pts /tmp /run"])
    ask("rm_rf", "/v")
    ask("exists", "/v")
    return answers


def test_every_verb_means_the_same_in_both_guests(tiny: tuple[ApplianceBuild, Console, Path], tmp_path: Path) -> None:
    build, console, base = tiny
    with build.guest.mounted():
        in_appliance = use(build.guest)

    def in_namespace() -> list[object]:
        tree = tmp_path / "tree"
        tree.mkdir()
        subprocess.run(["tar", "-xpf", base, "-C", tree], check=True)
        guest = NamespaceGuest(tree, console)
        with guest.mounted():
            return use(guest)

    pairs = zip(in_appliance, userns.run(in_namespace), strict=True)
    different = [f"{str(mine)[:400]} against {str(theirs)[:400]}" for mine, theirs in pairs if mine != theirs]
    assert not different, "\n".join(different)


def test_commands_see_their_environment_and_nothing_else(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    with build.guest.mounted():
        printed = build.guest.command(["env"])
    seen = dict(line.split("=", 1) for line in printed.splitlines())
    seen.pop("_", None)
    assert seen == GUEST_ENVIRONMENT


def test_a_failing_command_is_told_with_its_last_lines(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, console, _ = tiny
    with build.guest.mounted(), pytest.raises(MkimageError, match="in the image: sh: exited with status 3") as caught:
        build.guest.command(["sh", "-c", "echo before; echo reason >&2; exit 3"])
    assert caught.value.tail[-2:] == ("before", "reason")
    assert isinstance(console.log, io.BytesIO)
    logged = console.log.getvalue().decode()
    assert "+ chroot /sysroot sh -c" in logged
    assert "reason" in logged


def test_what_a_command_leaves_running_ends_with_it(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    with build.guest.mounted():
        build.guest.command(["sh", "-c", "setsid sleep 9999 & setsid sleep 9999 >/dev/null 2>&1 &"])
    _, running = build._session.shell("ps ax")
    assert "9999" not in running


def test_offered_files_are_there_read_only_and_only_then(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    with build.guest.mounted():
        with build.offered("/run/offered"):
            assert build.guest.read_file("/run/offered/file") == b"of the host"
            with pytest.raises(MkimageError):
                build.guest.write("/run/offered/file", b"changed")
        assert not build.guest.exists("/run/offered/file")


def test_the_network_is_there_until_it_is_taken_away(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    _, route = build._session.shell("ip route show default")
    gateway = route.split()[2]  # which leads to this host's loopback
    assert gateway == appliance_network.GATEWAY
    with socket.create_server(("127.0.0.1", 0)) as server, build.guest.mounted():
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        ask = ["bash", "-c", f"exec 3<>/dev/tcp/{gateway}/{port} && cat <&3"]
        assert "reached" in build.guest.command(ask)
        assert b"nameserver" in build.guest.read_file("/etc/resolv.conf")
        assert build.guest.read_file("/etc/hosts").startswith(b"127.0.0.1 localhost\n")
        build.without_network()
        with pytest.raises(MkimageError, match="in the image: bash"):
            build.guest.command(ask)
        for name in appliance_network.FILES:
            assert not build.guest.exists(name)
        _, links = build._session.shell("ip -o link")
        assert len(links.splitlines()) == 1
        assert ": lo:" in links


def serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"reached\n")


def test_what_is_downloaded_has_room_of_its_own(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    """More than there is on the disk of the image; gone with the block, as the other mounts are below a bare one."""
    build, *_ = tiny
    with build.guest.mounted():
        with build.scratch("/var/downloads"), build.guest.bare("/run/bare"):
            build.guest.write("/var/downloads/file", b"downloaded")
            space = build._session.call("statvfs", "/var/downloads")
            assert space["bavail"] * space["frsize"] > 10 * guest_builds.SIZE_GIB * layout.GIB
            assert build.guest.ls("/run/bare/var/downloads") == build.guest.ls("/run/bare/run") == []
        assert build.guest.ls("/var/downloads") == []
        build.guest.rm_rf("/var/downloads")


def test_a_full_disk_is_the_size_that_was_asked_for(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    with build.guest.mounted():
        with pytest.raises(BadValueError, match="-s: the content does not fit on the disk") as caught:
            build.guest.command(["dd", "if=/dev/zero", "of=/var/large", "bs=1M"])
        assert caught.value.status == 3
        with pytest.raises(BadValueError, match="-s: "):
            build.guest.write("/var/more", b"x" * 3_000_000)
        build.guest.rm_f("/var/large")
        build.guest.rm_f("/var/more")
        build.guest.write("/var/more", b"fits again")


def test_a_killed_appliance_is_told_and_leaves_nothing(tiny: tuple[ApplianceBuild, Console, Path]) -> None:
    build, *_ = tiny
    (qemu,) = _own_qemus()
    with build.guest.mounted():
        threading.Timer(3, os.kill, (qemu, signal.SIGKILL)).start()
        with pytest.raises(MkimageError, match="the appliance ended unexpectedly") as caught:
            build.guest.command(["sleep", "600"])
    assert "out-of-memory" in caught.value.remedy
    assert caught.value.status == 1
    build.__exit__(None, None, None)
    assert list(_own_qemus()) == []
    assert sorted(path.name for path in build.disk.parent.iterdir()) == ["disk.raw", "offer.raw", "scratch.raw"]


# --- before there is an appliance ---------------------------------------------------------------------------------


def test_an_appliance_that_does_not_start_in_time(tmp_path: Path) -> None:
    base = guest_builds.tiny_base(tmp_path / "base.tar", ["sh"])
    before = time.monotonic()
    with ExitStack() as stack, pytest.raises(HostError, match="did not start within 2 s"):
        stack.enter_context(guest_builds.appliance(base, tmp_path / "work", Console(io.StringIO()), deadline=2))
    assert time.monotonic() - before < 120
    assert list(_own_qemus()) == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["disk.raw"]
