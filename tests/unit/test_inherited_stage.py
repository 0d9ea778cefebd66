"""What an image of one's own brings: each kind is found by verify, taken out with a note, and not found any more."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from golden_image import FILES, File
from make_request import make
from verify_tree import KERNEL, TreeBuilder, amphora

from amphora_mkimage import stages
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.stages import inherited
from amphora_mkimage.verify import checks, in_build
from amphora_mkimage.verify.result import Result

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own the tree")
OpenTree = Callable[[TreeBuilder], NamespaceGuest]


@pytest.fixture
def opened(tmp_path: Path) -> OpenTree:
    def unpack(tree: TreeBuilder) -> NamespaceGuest:
        return NamespaceGuest(tree.unpack(tmp_path / "tree"), Console(io.StringIO()))

    return unpack


def put(tree: TreeBuilder, file: File) -> None:
    if file.link:
        tree.link(file.path, file.link)
    else:
        tree.write(file.path, file.text, file.mode)


def whole() -> TreeBuilder:
    tree = amphora()
    for file in FILES:
        put(tree, file)
    return tree


def found_by(guest: NamespaceGuest, identifier: str) -> list[str]:
    subject = in_build._subject(guest, make("-k", f"linux-image-{KERNEL}"))
    (outcome,) = (outcome for outcome in checks.run_cheap(subject) if outcome.check.id == identifier)
    return [f.detail for f in outcome.findings if f.result in (Result.FAIL, Result.WARN)]


NAMED = [file for file in FILES if file.check and file.note]


@pytest.mark.parametrize("file", NAMED, ids=[file.path for file in NAMED])
def test_each_kind(file: File, opened: OpenTree) -> None:
    tree = amphora()
    put(tree, file)
    if file.path.endswith("srv.mount"):
        tree.link("/etc/systemd/system/local-fs.target.wants/srv.mount", file.path)
    guest = opened(tree)
    assert found_by(guest, file.check) != []
    (note,) = inherited.neutralise(guest)
    assert file.path in note
    assert file.note in note
    assert found_by(guest, file.check) == []


def test_all_at_once(opened: OpenTree) -> None:
    guest = opened(whole())
    notes = inherited.neutralise(guest)
    for file in FILES:
        said = [note for note in notes if f"removed {file.path}:" in note or f"out of {file.path}:" in note]
        assert any(file.note in note for note in said) if file.note else not said, (file.path, said)
        assert len(said) == len(set(said))
        if file.left is not None:
            assert (guest.root / file.path[1:]).read_text() == file.left, file.path
        elif file.note:
            assert not os.path.lexists(guest.root / file.path[1:]), file.path
    assert not any("grub.pbkdf2" in note for note in notes)
    assert inherited.neutralise(guest) == []
    in_build.check(guest, make("-k", f"linux-image-{KERNEL}", DIB_LOCAL_IMAGE=__file__), Console(io.StringIO()))


def test_modes_and_owners_stay(opened: OpenTree) -> None:
    guest = opened(whole())
    script = guest.root / "etc/grub.d/01_password"
    os.chown(script, 0, 42)
    inherited.neutralise(guest)
    assert (script.stat().st_mode & 0o7777, script.stat().st_gid) == (0o755, 42)


def test_nothing_is_taken_out_of_an_amphora(opened: OpenTree) -> None:
    """Neither of ours: an image that this tool built is a fine base."""
    guest = opened(amphora())
    before = {path: (guest.root / path).read_bytes() for path in guest.find("/") if (guest.root / path).is_file()}
    for path in ("etc/default/grub.d", "etc/cloud/cloud.cfg.d", "etc/sysctl.d"):
        for file in (inherited.FILES / path).iterdir():
            guest.mkdir_p(f"/{path}")
            guest.write(f"/{path}/{file.name}", file.read_bytes())
            before[f"{path}/{file.name}"] = file.read_bytes()
    assert inherited.neutralise(guest) == []
    assert before == {path: (guest.root / path).read_bytes() for path in before}


def test_notes_of_a_cached_base_are_not_lost(opened: OpenTree) -> None:
    tree = amphora()
    tree.write("/etc/cloud/cloud-init.disabled")
    tree.write(inherited.NOTES, '["removed nothing: it is a lie"]')
    guest = opened(tree)
    inherited.before_packages(guest)
    assert not guest.exists("/etc/cloud/cloud-init.disabled")
    (line,) = inherited.run(guest, make(DIB_LOCAL_IMAGE=__file__))
    assert line == "DIB_LOCAL_IMAGE: removed /etc/cloud/cloud-init.disabled: it turns cloud-init off"
    assert not guest.exists(inherited.NOTES)
    assert inherited.run(guest, make()) == []


def test_what_cannot_be_mended_is_refused(opened: OpenTree) -> None:
    tree = amphora()
    tree.append("/etc/cloud/cloud.cfg", "cloud_init_modules: [ ssh ]\n")
    guest = opened(tree)
    with pytest.raises(BadValueError, match=r"DIB_LOCAL_IMAGE: /etc/cloud/cloud\.cfg: .*write-files") as caught:
        inherited.before_packages(guest)
    assert "write-files" in caught.value.remedy
    guest.write_append("/etc/cloud/cloud.cfg", b"# write-files\n")
    with pytest.raises(BadValueError):
        inherited.before_packages(guest)


def test_red_hats_own_script_stays(opened: OpenTree) -> None:
    """It sets users only where user.cfg has a password."""
    tree = amphora()
    script = 'cat << EOF\nset superusers="root"\npassword_pbkdf2 root \\${GRUB2_PASSWORD}\nEOF\n'
    tree.write("/etc/grub.d/01_users", script, 0o755)
    tree.write("/boot/grub2/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.sha512.10000.x\n")
    guest = opened(tree)
    assert [note.partition(":")[0] for note in inherited.neutralise(guest)] == ["removed /boot/grub2/user.cfg"]
    assert (guest.root / "etc/grub.d/01_users").read_text() == script


def test_links_lead_nowhere_else(opened: OpenTree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("network: {config: disabled}\ninstall brd /bin/true\n")
    tree = amphora()
    for path in ("/etc/cloud/cloud.cfg.d/99-x.cfg", "/etc/modprobe.d/x.conf", "/etc/cloud/cloud-init.disabled"):
        tree.link(path, f"../../../../../../../../../..{outside}")
    tree.link("/etc/grub.d", str(tmp_path))
    guest = opened(tree)
    assert len(inherited.neutralise(guest)) == 1
    assert outside.read_text().startswith("network")
    assert not os.path.lexists(guest.root / "etc/cloud/cloud-init.disabled")


def test_a_link_inside_is_followed(opened: OpenTree) -> None:
    tree = amphora()
    tree.write("/etc/hardening/modules", "install brd /bin/true\n")
    tree.link("/etc/modprobe.d/x.conf", "../hardening/modules")
    guest = opened(tree)
    assert len(inherited.neutralise(guest)) == 1
    assert (guest.root / "etc/hardening/modules").read_text() == ""
    assert (guest.root / "etc/modprobe.d/x.conf").is_symlink()


def test_hostile_files_end_nothing(opened: OpenTree) -> None:
    """A pipe, a directory, bytes that are no text, a file without end, a name with a control character."""
    guest = opened(amphora())
    for place in ("etc/modprobe.d", "etc/cloud/cloud.cfg.d", "etc/sysctl.d", "etc/grub.d", "etc/apt/apt.conf.d"):
        directory = guest.root / place
        directory.mkdir(parents=True, exist_ok=True)
        os.mkfifo(directory / "99-pipe.conf")
        (directory / "99-directory.conf").mkdir()
        (directory / "99-bytes.conf").write_bytes(b"\xff\xfe\0" * 100)
        (directory / "99-large.conf").write_bytes(b"")
        os.truncate(directory / "99-large.conf", 1 << 40)
        (directory / os.fsdecode(b"99-caf\xe9.conf")).write_bytes(b"x")
    (guest.root / "etc/modprobe.d/99-\x1b[2J.conf").write_bytes(b"install brd /bin/true\xff\n")
    (note,) = inherited.neutralise(guest)
    assert "\x1b" not in note
    assert (guest.root / "etc/modprobe.d/99-bytes.conf").read_bytes() == b"\xff\xfe\0" * 100


def test_it_comes_before_the_stages_that_write() -> None:
    assert stages.ORDER[0].__name__ == inherited.__name__
