"""Which subordinate ids are used, and what is said where there are too few; that it works is test_probe's."""

from __future__ import annotations

from pathlib import Path

import pytest

from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import id_maps

EVERYTHING = ((0, 4294967295),)
ROOTLESS = ((0, 65537),)  # the ids of a container of rootless podman
OWNER = ("user", 4242)


def written(directory: Path, content: str | None) -> str:
    file = directory / "subuid"
    if content is not None:
        file.write_text(content)
    return str(file)


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("user:100000:65536\n", 100000),
        ("other:1:65536\nuser:100000:10\nuser:200000:65536\n", 200000),
        ("4242:300000:65536\n", 300000),
        ("# comment\n\nbroken\nuser:x:y\nuser:5000:65535\n", 5000),
    ],
)
def test_one_range(content: str, start: int, tmp_path: Path) -> None:
    assert id_maps.subordinate(written(tmp_path, content), OWNER, 4242, EVERYTHING) == ((start, 65535),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("user:1:4241\nuser:4243:61294\n", ((1, 4241), (4243, 61294))),
        ("user:1:65536\n", ((1, 4241), (4243, 61294))),  # our own id is in the map already
        ("user:0:65537\n", ((1, 4241), (4243, 61294))),  # root's is never given
        ("user:100000:65536\nuser:1:65536\n", ((1, 4241), (4243, 61294))),  # ids that do not exist here
        ("user:1:100\nuser:50:10\nuser:101:65436\n", ((1, 100), (101, 4141), (4243, 61294))),  # none twice
    ],
)
def test_several_ranges(content: str, expected: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    found = id_maps.subordinate(written(tmp_path, content), OWNER, 4242, ROOTLESS)
    assert found == expected
    assert sum(count for _, count in found) == id_maps.IDS - 1


@pytest.mark.parametrize("content", [None, "", "other:100000:65536\n", "user:100000:65534\n"])
def test_no_subordinate_range_is_the_hosts_fault(content: str | None, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="user has no 65535 subordinate ids") as caught:
        id_maps.subordinate(written(tmp_path, content), OWNER, 4242, EVERYTHING)
    assert caught.value.remedy == "as root: usermod --add-subuids 100000-165535 user"


@pytest.mark.parametrize("content", ["", "user:100000:65536\n"])
def test_the_remedy_in_a_container_names_ids_that_exist_there(content: str, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        id_maps.subordinate(written(tmp_path, content), OWNER, 4242, ROOTLESS)
    assert caught.value.remedy == "as root: usermod --add-subuids 1-4241 --add-subuids 4243-65536 user"
    assert ("do not exist in this container" in caught.value.what) == bool(content)


def test_a_container_with_too_few_ids_needs_more(tmp_path: Path) -> None:
    """A user takes one more than root: id 0 is not the user's."""
    with pytest.raises(HostError) as caught:
        id_maps.subordinate(written(tmp_path, "user:1:65536\n"), OWNER, 4242, ((0, 65536),))
    assert "--userns=auto:size=65537" in caught.value.remedy
