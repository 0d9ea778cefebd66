"""Which subordinate ids are used, and what is said where there are too few; that it works is test_probe's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import sub_ids, userns

EVERYTHING = "0 0 4294967295\n"
ROOTLESS = "0 1000 1\n1 100000 65536\n"  # the ids of a container of rootless podman
USER = sub_ids.User("user", 4242, 4242)
ONE = ((131072, 65535),)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory for the files of /etc, with a local user and a whole range of either kind."""
    for file, text in (
        ("passwd", "user:x:4242:4242::/home/user:/bin/sh\n"),
        ("subuid", "user:131072:65536\n"),
        ("subgid", "user:131072:65536\n"),
        ("uid_map", EVERYTHING),
        ("gid_map", EVERYTHING),
    ):
        (tmp_path / file).write_text(text)
    return tmp_path


def found(etc: Path) -> tuple[tuple[sub_ids.Range, ...], tuple[sub_ids.Range, ...]]:
    return sub_ids.of(USER, etc, etc)


def refused(etc: Path) -> HostError:
    with pytest.raises(HostError) as caught:
        found(etc)
    return caught.value


def in_container(etc: Path, ids: str) -> None:
    for file in ("uid_map", "gid_map"):
        (etc / file).write_text(ids)


# --- what there is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("user:100000:65536\n", 100000),
        ("other:1:65536\nuser:100000:10\nuser:200000:65536\n", 200000),
        ("4242:300000:65536\n", 300000),
        ("# comment\n\nbroken\nuser:x:y\nuser:5000:65535\n", 5000),
    ],
)
def test_one_range(content: str, start: int, etc: Path) -> None:
    (etc / "subuid").write_text(content)
    assert found(etc) == (((start, 65535),), ONE)


@pytest.mark.parametrize("kind", list(sub_ids.Kind))
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("user:1:4241\nuser:4243:61294\n", ((1, 4241), (4243, 61294))),
        ("user:1:65536\n", ((1, 4241), (4243, 61294))),  # our own id is in the map already
        ("user:0:65537\n", ((1, 4241), (4243, 61294))),  # root's is never given
        ("user:100000:65536\nuser:1:65536\n", ((1, 4241), (4243, 61294))),  # ids that do not exist here
        ("user:1:100\nuser:50:10\nuser:101:65436\n", ((1, 100), (101, 4141), (4243, 61294))),  # none twice
        ("user:1:100\nuser:1:65536\n", ((1, 100), (101, 4141), (4243, 61294))),  # nor is what overlaps lost
    ],
)
def test_several_ranges(content: str, expected: tuple[sub_ids.Range, ...], kind: sub_ids.Kind, etc: Path) -> None:
    in_container(etc, ROOTLESS)
    (etc / "subuid").write_text("user:1:65536\n")
    (etc / "subgid").write_text("user:1:65536\n")
    (etc / f"sub{kind}").write_text(content)
    ranges = dict(zip(sub_ids.Kind, found(etc), strict=True))[kind]
    assert ranges == expected
    assert sum(count for _, count in ranges) == sub_ids.IDS - 1


# --- what is proposed ----------------------------------------------------------------------------------------------

BOTH = "as root: usermod --add-subuids {0}-{1} --add-subgids {0}-{1} user"


@pytest.mark.parametrize(
    ("subuid", "subgid", "start"),
    [
        (None, None, 131072),
        ("", "", 131072),
        ("user:131072:65534\n", "", 196608),
        ("other:100000:65536\n", "other:100000:65536\n", 196608),
        ("other:100000:65536\n", "", 196608),
        ("", "other:1000000:65536\n", 1114112),
        ("a:100000:65536\nb:165536:65536\n", "a:100000:65536\nb:165536:65536\nc:231072:65536\n", 327680),
        ("other:4294000000:900000\n", "other:131072:1\n", 196608),  # nothing is free above
    ],
)
def test_the_proposal_is_free_in_both_files_and_one_command_does_both(
    subuid: str | None, subgid: str | None, start: int, etc: Path
) -> None:
    for name, text in (("subuid", subuid), ("subgid", subgid)):
        (etc / name).unlink()
        if text is not None:
            (etc / name).write_text(text)
    error = refused(etc)
    assert error.what == f"user has no 65535 subordinate ids in {etc}/subuid and {etc}/subgid"
    assert error.remedy == BOTH.format(start, start + 65535)


def test_only_what_is_missing_is_proposed(etc: Path) -> None:
    (etc / "subgid").unlink()
    error = refused(etc)
    assert error.what == f"user has no 65535 subordinate ids in {etc}/subgid"
    assert error.remedy == "as root: usermod --add-subgids 196608-262143 user"


def test_ids_in_use_are_not_proposed(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory service may give users such ids; the real entry of such a one stands in for it."""
    entry = sub_ids.pwd.struct_passwd(("bob", "x", 131072 + 7, 100, "", "/", "/bin/sh"))
    monkeypatch.setattr(sub_ids.pwd, "getpwall", lambda: [entry])
    for name in ("subuid", "subgid"):
        (etc / name).write_text("")
    assert refused(etc).remedy == BOTH.format(196608, 262143)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("usermod") is None, reason="needs root to give a user subordinate ids"
)
def test_root_can_do_what_is_proposed(etc: Path) -> None:
    """The real usermod, in a root directory of its own; afterwards there is nothing to complain about."""
    (etc / "etc").mkdir()
    for name in ("passwd", "subuid", "subgid"):
        (etc / name).rename(etc / "etc" / name)
    for name, text in (("shadow", "user:*:::::::\n"), ("group", "user:x:4242:\n"), ("subuid", "bob:131072:65536\n")):
        (etc / "etc" / name).write_text(text)
    (etc / "etc/subgid").write_text("user:196608:10\n")
    with pytest.raises(HostError) as caught:
        sub_ids.of(USER, etc / "etc", etc)
    command = caught.value.remedy.removeprefix("as root: ").split()
    subprocess.run([command[0], "--prefix", str(etc), *command[1:]], check=True)
    block = ((262144, 65535),)
    assert sub_ids.of(USER, etc / "etc", etc) == (block, block)


def test_a_user_whom_usermod_does_not_know(etc: Path) -> None:
    """A directory service's: the lines are written by hand."""
    (etc / "passwd").write_text("")
    (etc / "subuid").write_text("")
    error = refused(etc)
    script = error.remedy.removeprefix("as root: ").replace("/etc/", f"{etc}/")
    subprocess.run(["sh", "-c", script], check=True)
    assert found(etc) == (((196608, 65535),), ONE)


def test_a_name_is_quoted_for_the_shell(etc: Path) -> None:
    (etc / "passwd").write_text("")
    (etc / "subuid").write_text("")
    with pytest.raises(HostError) as caught:
        sub_ids.of(sub_ids.User(r"LAB\a b", 4242, 4242), etc, etc)
    script = caught.value.remedy.removeprefix("as root: ").replace("/etc/", f"{etc}/")
    subprocess.run(["sh", "-c", script], check=True)
    assert (etc / "subuid").read_text() == "LAB\\a b:196608:65536\n"


# --- containers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "user:100000:65536\n"])
def test_the_remedy_in_a_container_names_ids_that_exist_there(content: str, etc: Path) -> None:
    in_container(etc, ROOTLESS)
    for name in ("subuid", "subgid"):
        (etc / name).write_text(content)
    error = refused(etc)
    assert error.remedy == (
        "as root: usermod --add-subuids 1-4241 --add-subuids 4243-65536"
        " --add-subgids 1-4241 --add-subgids 4243-65536 user"
    )
    assert ("do not exist in this container" in error.what) == bool(content)


def test_a_block_fits_the_containers_own_map(etc: Path) -> None:
    in_container(etc, "0 1000 1\n1 100000 400000\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text("other:131072:65536\nmore:300000:65536\n")
    assert refused(etc).remedy == BOTH.format(196608, 262143)


def test_what_the_user_has_already_is_not_given_again(etc: Path) -> None:
    """In a container that has only just enough; the kernel refuses a map that has an id twice."""
    in_container(etc, ROOTLESS)
    for name in ("subuid", "subgid"):
        (etc / name).write_text("user:1:100\n")
    error = refused(etc)
    given = re.findall(r"--add-subuids (\d+)-(\d+)", error.remedy)
    assert given == [("101", "4241"), ("4243", "65536")]
    for name in ("subuid", "subgid"):
        lines = "".join(f"user:{first}:{int(last) - int(first) + 1}\n" for first, last in given)
        (etc / name).write_text("user:1:100\n" + lines)
    assert found(etc)[0] == ((1, 100), (101, 4141), (4243, 61294))


@pytest.mark.parametrize(
    ("ids", "lines"), [("0 1000 65536\n", "user:1:65536\n"), (ROOTLESS, "other:1:1000\nuser:1001:64536\n")]
)
def test_a_container_with_too_few_ids_needs_more(ids: str, lines: str, etc: Path) -> None:
    """A user takes one more than root: id 0 is not the user's."""
    in_container(etc, ids)
    for name in ("subuid", "subgid"):
        (etc / name).write_text(lines)
    assert "--userns=auto:size=65537" in refused(etc).remedy


# --- directory services --------------------------------------------------------------------------------------------

#: A service of the lab's for libsubid, the interface of shadow's lib/prototypes.h (struct subid_nss_ops).
SERVICE = r"""
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
struct range { unsigned long start; unsigned long count; };
int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int type, bool *result)
{ *result = true; return 0; }
int shadow_subid_find_subid_owners(unsigned long id, int type, unsigned **uids, int *count)
{ *count = 0; return 0; }
int shadow_subid_list_owner_ranges(const char *owner, int type, struct range **ranges, int *count)
{
    *count = strcmp(owner, "user") == 0;
    *ranges = malloc(sizeof(struct range));
    (*ranges)->start = type == 1 ? 2147483648UL : 2147549184UL;
    (*ranges)->count = 65536;
    return 0;
}
"""


def test_ranges_of_a_directory_service_are_read_by_getsubids(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real getsubids, with a service that is written for this test; /etc/subuid then counts for nothing."""
    if os.geteuid() != 0 or shutil.which("getsubids") is None or shutil.which("cc") is None:
        pytest.skip("needs root, getsubids and a C compiler")
    (etc / "service.c").write_text(SERVICE)
    library = etc / "libsubid_lab.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, etc / "service.c"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(etc))
    (etc / "nsswitch.conf").write_text("passwd: files\nsubid:\tlab  # of the test\n")

    def inside(name: str) -> tuple[tuple[sub_ids.Range, ...], tuple[sub_ids.Range, ...]]:
        userns.mount(str(etc / "nsswitch.conf"), Path("/etc/nsswitch.conf"), "", userns.MS_BIND)
        return sub_ids.of(sub_ids.User(name, 4242, 4242), etc, etc)

    assert userns.run(lambda: inside("user")) == (((2147483648, 65535),), ((2147549184, 65535),))
    with pytest.raises(HostError) as caught:
        userns.run(lambda: inside("nobody-of-the-service"))
    assert "getsubids (nsswitch.conf: subid: lab)" in caught.value.what
    assert "usermod" not in caught.value.remedy  # what is in the files is not looked at


def test_a_service_without_getsubids(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etc / "nsswitch.conf").write_text("subid: sss\n")
    monkeypatch.setenv("PATH", str(etc))
    error = refused(etc)
    assert "getsubids" in error.what
    assert "sss" in error.what
    assert "uidmap" in error.remedy
