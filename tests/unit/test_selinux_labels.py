"""SELinux labels in a filesystem that lies in a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.disk import filesystems, selinux_labels
from amphora_mkimage.disk.layout import MIB, Extent
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.namespace import NamespaceGuest

WHERE = Extent(3 * MIB, 60 * MIB)
#: What setfiles (policycoreutils 3.8) prints on a system without SELinux.
OUTPUT = """\
Would relabel / from <no context> to system_u:object_r:root_t:s0
Would relabel /etc/my file from <no context> to system_u:object_r:etc_t:s0
Would relabel /etc/from a to b from <no context> to system_u:object_r:etc_t:s0
/etc/other not reset
"""


class SaidGuest(NamespaceGuest):
    """A guest whose setfiles prints a given text."""

    said = ""

    def command(self, arguments: list[str]) -> str:
        assert arguments[0] == "setfiles"
        return self.said


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/my file").write_text("x")
    (tree / "etc/percent%d").write_text("x")
    made = tmp_path / "disk"
    made.touch()
    with made.open("wb") as file:
        file.truncate(64 * MIB)
    filesystems.make_root(tree, made, WHERE, "01234567-0123-4567-89ab-0123456789ab", Console())
    return made


def label(disk: Path, path: str) -> str:
    argv = ["debugfs", "-R", f'ea_list "{path}"', f"{disk}?offset={WHERE.offset}"]
    env = process.environment()
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout


def test_labels_are_written_and_the_filesystem_stays_sound(disk: Path, tmp_path: Path) -> None:
    wanted = {
        "/": "system_u:object_r:root_t:s0",
        "/etc": "system_u:object_r:etc_t:s0",
        "/etc/my file": "system_u:object_r:file_t:s0:c1,c2",
        "/etc/percent%d": "system_u:object_r:file_t:s0",
        "/not/there": "system_u:object_r:file_t:s0",
    }
    selinux_labels.write(disk, WHERE.offset, wanted, tmp_path, Console())
    for path, context in wanted.items():
        if path != "/not/there":
            assert f'"{context}"' in label(disk, path)
    part = tmp_path / "part"
    part.write_bytes(disk.read_bytes()[WHERE.offset :])
    subprocess.run(["e2fsck", "-f", "-n", part], check=True, capture_output=True, env=process.environment())


def test_a_label_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with pytest.raises(MkimageError, match="labels"):
        selinux_labels.write(tmp_path / "disk", 0, {"/": "system_u:object_r:root_t:s0"}, tmp_path, Console())


def test_what_setfiles_says(tmp_path: Path) -> None:
    guest = SaidGuest(tmp_path, Console())
    guest.said = OUTPUT
    assert selinux_labels.labels(guest) == {
        "/": "system_u:object_r:root_t:s0",
        "/etc/my file": "system_u:object_r:etc_t:s0",
        "/etc/from a to b": "system_u:object_r:etc_t:s0",
    }
    guest.said = "/etc not reset\n"
    with pytest.raises(MkimageError, match="knows no labels"):
        selinux_labels.labels(guest)
    guest.close()
