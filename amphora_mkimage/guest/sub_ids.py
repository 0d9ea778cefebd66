"""Subordinate ids of a user (subuid(5)): which there are, and which could be given.

They are lines of /etc/subuid and /etc/subgid, or come from a directory service that nsswitch.conf(5) names under
``subid:``; then getsubids(1) reads them, as newuidmap(1) does. A range that two users have lets each act on the other's
files, so what is proposed to root is in nobody's line, and not in use as an id.
"""

from __future__ import annotations

import contextlib
import grp
import pwd
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from amphora_mkimage.errors import HostError

#: Ids that a distribution's static and dynamic system users need (deb-policy 9.2.2 reserves 0-64999, nobody is 65534).
IDS = 65536
#: Ids below it are a system's and its users' own (login.defs(5), UID_MAX; useradd(8) gives ranges from 100000 on).
_FIRST = 100000
_LAST = (1 << 32) - 1  # is not an id: it says "none" in system calls

#: First id and count.
Range = tuple[int, int]


class Kind(StrEnum):
    """Ids of users, or of groups."""

    UID = "uid"
    GID = "gid"


@dataclass(frozen=True)
class User:
    """Whose subordinate ids are looked for."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class _Ids:
    """What is known about ids of one kind.

    :param place: where the user's ranges are written down, for messages
    :param lines: ranges of every user
    :param theirs: ranges of the user
    :param here: ids that exist in the user namespace that we are in, without root's and the user's own
    """

    kind: Kind
    place: str
    lines: list[Range]
    theirs: list[Range]
    here: list[Range]

    @property
    def usable(self) -> list[Range]:
        """Ranges of the user that exist here, none twice."""
        usable = _disjoint(common for row in self.theirs for common in _common(row, self.here))
        return _take(next(([row] for row in usable if row[1] >= IDS - 1), usable), IDS - 1)

    @property
    def enough(self) -> bool:
        """Whether root's id, which is the user's own outside, and these are all that a system needs."""
        return _count(self.usable) == IDS - 1

    @property
    def elsewhere(self) -> bool:
        """Whether there would be enough outside of this container."""
        return _count(self.theirs) >= IDS - 1


def of(
    user: User, etc: Path = Path("/etc"), proc: Path = Path("/proc/self")
) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return the subordinate ids of a user: of users, and of groups; :data:`IDS` - 1 of each.

    One range that is long enough, else the ranges together.

    :param etc: has subuid, subgid, passwd and nsswitch.conf
    :param proc: has uid_map and gid_map; a container may have few ids
    :raises HostError: there are too few; its remedy gives both kinds
    """
    service = _service(etc)
    found = [_look(kind, user, etc, proc, service) for kind in Kind]
    lacking = [ids for ids in found if not ids.enough]
    if lacking:
        raise HostError(_complaint(user, lacking), _remedy(user, found, lacking, etc, service))
    uids, gids = found
    return tuple(uids.usable), tuple(gids.usable)


def more_ids(wanted: int) -> str:
    """Return what to do in a container that has too few ids."""
    return (
        f"run the container with {wanted} ids (podman: --userns=auto:size={wanted}); rootless, its user outside needs a"
        f" subordinate range of {IDS} in /etc/subuid and /etc/subgid"
    )


def existing(map_file: Path) -> list[Range]:
    """Return which ids exist in the user namespace that we are in (/proc/self/uid_map)."""
    lines = map_file.read_text(encoding="ascii").splitlines()
    return [(int(start), int(count)) for start, _, count in (line.split() for line in lines)]


# --- what is written down ------------------------------------------------------------------------------------------


def _service(etc: Path) -> str:
    """Return what nsswitch.conf(5) names for subordinate ids; "files" where it names nothing."""
    with contextlib.suppress(OSError):
        for line in (etc / "nsswitch.conf").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, sources = line.partition("#")[0].partition(":")
            if name.strip() == "subid" and sources.split():
                return sources.split()[0]
    return "files"


def _look(kind: Kind, user: User, etc: Path, proc: Path, service: str) -> _Ids:
    file = etc / f"sub{kind}"
    lines = list(_lines(file))
    place = str(file)
    theirs = [(start, count) for who, start, count in lines if who in (user.name, str(user.uid))]
    if service != "files":
        theirs = list(_of_service(user.name, kind, service))
        place = f"getsubids{' -g' if kind is Kind.GID else ''} (nsswitch.conf: subid: {service})"
    own = user.uid if kind is Kind.UID else user.gid
    here = [part for row in existing(proc / f"{kind}_map") for part in _minus(row, [(0, 1), (own, 1)])]
    return _Ids(kind, place, [(start, count) for _, start, count in lines], theirs, here)


def _lines(file: Path) -> Iterator[tuple[str, int, int]]:
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.strip().split(":")
            if len(fields) == 3 and all(field.isascii() and field.isdigit() for field in fields[1:]):
                yield fields[0], int(fields[1]), int(fields[2])


def _of_service(name: str, kind: Kind, service: str) -> Iterator[Range]:
    """Ask getsubids(1), whose lines are ``0: bob 100000 65536``."""
    argv = ["getsubids", *(["-g"] if kind is Kind.GID else []), name]
    try:
        text = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError as error:
        raise HostError(
            f"getsubids, which reads the subordinate ids that {service} gives (nsswitch.conf), is not installed",
            "install the package uidmap (RPM systems: shadow-utils-subid)",
        ) from error
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2].isdigit() and fields[3].isdigit():
            yield int(fields[2]), int(fields[3])


# --- what is missing -----------------------------------------------------------------------------------------------


def _complaint(user: User, lacking: Sequence[_Ids]) -> str:
    places = " and ".join(ids.place for ids in lacking)
    if all(ids.elsewhere for ids in lacking):
        maps = " and ".join(f"/proc/self/{ids.kind}_map" for ids in lacking)
        return f"ids of {user.name} in {places} do not exist in this container ({maps})"
    return f"{user.name} has no {IDS - 1} subordinate ids in {places}"


def _remedy(user: User, found: Sequence[_Ids], lacking: Sequence[_Ids], etc: Path, service: str) -> str:
    if service != "files":
        return f"have {service} give {user.name} a range of {IDS} ids, or name files under subid: in nsswitch.conf"
    block = _free_block(found)
    given: dict[Kind, list[Range]] = {}
    for ids in lacking:
        if block is not None:
            given[ids.kind] = [block]
            continue
        free = [part for row in ids.here for part in _minus(row, ids.lines)]
        wanted = IDS - 1 - _count(ids.usable)
        given[ids.kind] = _take(free, wanted)
        if _count(given[ids.kind]) < wanted:
            return more_ids(IDS + 1)  # root's, which is not ours to give, and the user's own
    return f"as root: {_command(user.name, given, etc)}"


def _command(name: str, given: dict[Kind, list[Range]], etc: Path) -> str:
    """Return the one command that gives them; usermod(8) knows local users only."""
    who = shlex.quote(name)
    if any(line.startswith(f"{name}:") for line in _text(etc / "passwd").splitlines()):
        options = [
            f"--add-sub{kind}s {start}-{start + count - 1}" for kind, rows in given.items() for start, count in rows
        ]
        return f"usermod {' '.join(options)} {who}"
    commands = []
    for kind, rows in given.items():
        lines = " ".join(shlex.quote(f"{name}:{start}:{count}") for start, count in rows)
        commands.append(f"printf '%s\\n' {lines} >> /etc/sub{kind}")
    return " && ".join(commands)


def _free_block(found: Sequence[_Ids]) -> Range | None:
    """Return a block of ids, the same for users and groups, that nobody has: above every line, else between them."""
    lines = [row for ids in found for row in ids.lines]
    used = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    first = -(-_FIRST // IDS) * IDS
    top = -(-max([start + count for start, count in lines] + [first]) // IDS) * IDS
    for start in (*range(top, _LAST - IDS, IDS), *range(first, min(top, _LAST - IDS), IDS)):
        block = (start, IDS)
        if not all(_common(block, ids.here) == [block] for ids in found):
            continue
        if not _common(block, lines) and not any(start <= number < start + IDS for number in used):
            return block
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# --- ranges of ids -------------------------------------------------------------------------------------------------


def _count(rows: Iterable[Range]) -> int:
    return sum(count for _, count in rows)


def _minus(row: Range, others: Iterable[Range]) -> list[Range]:
    """Take the ids of other ranges out of one."""
    parts = [row]
    for other, count in others:
        end = other + count
        split = []
        for start, length in parts:
            split += [(start, min(start + length, other) - start), (max(start, end), start + length - max(start, end))]
        parts = [(start, length) for start, length in split if length > 0]
    return parts


def _common(row: Range, others: Sequence[Range]) -> list[Range]:
    found = []
    for start, count in others:
        first, last = max(start, row[0]), min(start + count, row[0] + row[1])
        if last > first:
            found.append((first, last - first))
    return found


def _disjoint(rows: Iterable[Range]) -> list[Range]:
    """Drop ids that an earlier range has: the kernel refuses a map that has an id twice."""
    kept: list[Range] = []
    for row in rows:
        kept += _minus(row, kept)
    return kept


def _take(rows: Sequence[Range], wanted: int) -> list[Range]:
    """Take as many ids as are wanted, or all when there are fewer."""
    chosen, left = [], wanted
    for start, count in rows:
        if left:
            chosen.append((start, min(count, left)))
            left -= chosen[-1][1]
    return chosen
