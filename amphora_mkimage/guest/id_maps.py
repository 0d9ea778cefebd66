"""Which ids outside the ids of a user namespace are, and how they get there.

Root writes the map itself. An ordinary user has newuidmap(1) do it, within the ranges of subuid(5). Containers take
away what either needs: capabilities, ids, the power of setuid programs. Each of these has a remedy of its own, so
each is looked for. See user_namespaces(7), "Defining user and group ID mappings", and capabilities(7).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import HostError

#: Ids that a distribution's static and dynamic system users need (deb-policy 9.2.2 reserves 0-64999, nobody is 65534).
IDS = 65536
_CAPABILITIES = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31}
_TOOLS = {"uid": ("newuidmap", "cap_setuid"), "gid": ("newgidmap", "cap_setgid")}


@dataclass(frozen=True)
class IdMap:
    """How ids inside map to ids outside: lines of (inside, outside, count), for uid_map and for gid_map."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]
    privileged: bool  #: the maps can be written directly, without newuidmap


def plan() -> IdMap:
    """Choose the id map for this user.

    :raises HostError: the user has no subordinate ids, or too few of them; or a container lacks what it takes
    """
    if _have("CapEff", "CAP_SETUID", "CAP_SETGID"):
        return IdMap(_identity("/proc/self/uid_map"), _identity("/proc/self/gid_map"), privileged=True)
    if not _have("CapBnd", "CAP_SETUID", "CAP_SETGID"):  # then no program has them, newuidmap included
        raise HostError(
            "CAP_SETUID and CAP_SETGID, which ids of other users take, are out of reach here (capability bounding set)",
            "run the container with --cap-add SETUID --cap-add SETGID (Kubernetes: capabilities.add)",
        )
    uid, gid = os.getuid(), os.getgid()
    name = _user_name(uid)
    sub_uids = subordinate("/etc/subuid", (name, uid), uid, _existing("/proc/self/uid_map"))
    sub_gids = subordinate("/etc/subgid", (name, uid), gid, _existing("/proc/self/gid_map"))
    for tool, _ in _TOOLS.values():
        if shutil.which(tool) is None:
            raise HostError(f"{tool} is not installed", "install the package uidmap (shadow-utils on RPM systems)")
    # Id 0 inside is the user outside: what the build writes into the cache and the output then belongs to the user.
    return IdMap(_in_a_row(uid, sub_uids), _in_a_row(gid, sub_gids), privileged=False)


def write(id_map: IdMap, process: int) -> None:
    """Give a process that has just entered a user namespace its ids.

    :raises HostError: it was refused
    """
    for kind, rows in (("uid", id_map.uids), ("gid", id_map.gids)):
        if id_map.privileged:
            _write_directly(kind, rows, process)
            continue
        argv = [_TOOLS[kind][0], str(process), *(str(number) for row in rows for number in row)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            cause, remedy = _refused_tool(kind)
            reason = done.stderr.strip() or f"status {done.returncode}"
            raise HostError(f"{argv[0]} failed: {reason}{cause}", remedy)


def subordinate(
    file: str, owner: tuple[str, int], own: int, existing: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Find subordinate ids of a user (subuid(5)): one range that is long enough, else the ranges together.

    :param file: /etc/subuid or /etc/subgid
    :param owner: the user's name and id; a line may begin with either
    :param own: the user's own id, which is in the map already and may not be there twice
    :param existing: first id and count of the ranges of ids that exist here; a container may have few
    :returns: first id and count of each range, :data:`IDS` - 1 ids in all
    :raises HostError: there are too few
    """
    here = [part for row in existing for part in _without(row, own)]
    theirs = [(start, count) for who, start, count in _ranges(file) if who in (owner[0], str(owner[1]))]
    usable = _disjoint(common for row in theirs for common in _common(row, here))
    chosen = _take(next(([row] for row in usable if row[1] >= IDS - 1), usable))
    if sum(count for _, count in chosen) == IDS - 1:
        return tuple(chosen)
    kind = Path(file).name.removeprefix("sub")
    if sum(count for _, count in theirs) >= IDS - 1:
        raise HostError(
            f"ids of {owner[0]} in {file} do not exist in this container (/proc/self/{kind}_map)",
            _usermod(kind, owner[0], _take(here)),
        )
    raise HostError(f"{owner[0]} has no {IDS - 1} subordinate ids in {file}", _usermod(kind, owner[0], _proposal(here)))


def _usermod(kind: str, name: str, ranges: Sequence[tuple[int, int]]) -> str:
    if sum(count for _, count in ranges) < IDS - 1:
        return _more_ids(IDS + 1)  # root's, which is not ours to give, and the user's own
    options = " ".join(f"--add-sub{kind}s {start}-{start + count - 1}" for start, count in ranges)
    return f"as root: usermod {options} {name}"


def _more_ids(wanted: int) -> str:
    return (
        f"run the container with {wanted} ids (podman: --userns=auto:size={wanted}); rootless, its user outside needs a"
        f" subordinate range of {IDS} in /etc/subuid and /etc/subgid"
    )


def _proposal(here: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Propose ids: those that distributions give where they exist, else whatever exists."""
    usual = (100000, IDS)
    return [usual] if _common(usual, here) == [usual] else _take(here)


# --- ranges of ids: (first, count) ---------------------------------------------------------------------------------


def _without(row: tuple[int, int], own: int) -> list[tuple[int, int]]:
    """Take root's id and our own out of a range."""
    start, end = max(row[0], 1), row[0] + row[1]
    parts = [(start, own), (own + 1, end)] if start <= own < end else [(start, end)]
    return [(first, last - first) for first, last in parts if last > first]


def _common(row: tuple[int, int], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    for start, count in others:
        first, last = max(start, row[0]), min(start + count, row[0] + row[1])
        if last > first:
            found.append((first, last - first))
    return found


def _disjoint(rows: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """Drop a range that overlaps an earlier one: the kernel refuses a map that has an id twice."""
    kept: list[tuple[int, int]] = []
    for row in rows:
        if not _common(row, kept):
            kept.append(row)
    return kept


def _take(rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Take as many ids as the map has besides root's, or all when there are fewer."""
    chosen, left = [], IDS - 1
    for start, count in rows:
        if left:
            chosen.append((start, min(count, left)))
            left -= chosen[-1][1]
    return chosen


def _in_a_row(own: int, rows: Sequence[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Map 0 to ourselves and 1, 2, … to the subordinate ids."""
    lines, inside = [(0, own, 1)], 1
    for start, count in rows:
        lines.append((inside, start, count))
        inside += count
    return tuple(lines)


# --- what there is -------------------------------------------------------------------------------------------------


def _have(which: str, *names: str) -> bool:
    """Tell whether a set of capabilities of this process has all of some.

    :param which: its name in /proc/self/status: CapEff, what we can use; CapBnd, what a program that we start can get
    """
    mask = int(_status(which), 16)
    return all(mask >> _CAPABILITIES[name] & 1 for name in names)


def _status(key: str) -> str:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return line.split()[1]
    return "0"


def _existing(map_file: str) -> list[tuple[int, int]]:
    """Read which ids exist in the user namespace that we are in."""
    lines = Path(map_file).read_text(encoding="ascii").splitlines()
    return [(int(start), int(count)) for start, _, count in (line.split() for line in lines)]


def _identity(map_file: str) -> tuple[tuple[int, int, int], ...]:
    """Map every id below :data:`IDS` that exists here to itself.

    :raises HostError: too few ids exist in this container
    """
    rows = tuple((start, start, min(count, IDS - start)) for start, count in _existing(map_file) if start < IDS)
    if sum(count for _, _, count in rows) < IDS:
        raise HostError(f"this container has fewer than {IDS} ids ({map_file})", _more_ids(IDS))
    return rows


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run us with an id that nobody has
        return str(uid)


def _ranges(file: str) -> Iterator[tuple[str, int, int]]:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                yield fields[0], int(fields[1]), int(fields[2])


# --- who refused ---------------------------------------------------------------------------------------------------


def _write_directly(kind: str, rows: Sequence[tuple[int, int, int]], process: int) -> None:
    text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
    try:
        Path(f"/proc/{process}/{kind}_map").write_text(text, encoding="ascii")
    except PermissionError as error:
        # Since Linux 5.12, who maps root must be able to set file capabilities (user_namespaces(7)).
        lacking = not _have("CapEff", "CAP_SETFCAP")
        cause = "; CAP_SETFCAP, which a map of root takes, is not there" if lacking else ""
        remedy = "run the container with --cap-add SETFCAP (Kubernetes: capabilities.add)" if lacking else ""
        raise HostError(
            f"ids cannot be mapped: {error.strerror} (/proc/PID/{kind}_map){cause}",
            remedy or "allow this user namespaces; see user_namespaces(7)",
        ) from error


def _refused_tool(kind: str) -> tuple[str, str]:
    """Say why newuidmap failed, and what to do; the former may be ""."""
    tool, capability = _TOOLS[kind]
    if _status("NoNewPrivs") == "1":
        return (
            " (no_new_privs is set: setuid programs and file capabilities have no effect)",
            "run the container without --security-opt no-new-privileges (Kubernetes: allowPrivilegeEscalation: true),"
            " or build as its root",
        )
    path = Path(shutil.which(tool) or tool)
    # A setuid newuidmap opens the map as root, who is not the namespace's owner, and so must have CAP_SYS_ADMIN; with a
    # file capability it opens it as the owner.
    if path.exists() and path.stat().st_mode & stat.S_ISUID and not _have("CapBnd", "CAP_SYS_ADMIN"):
        both = [
            f"chmod u-s {path.with_name(name)} && setcap {cap}=ep {path.with_name(name)}"
            for name, cap in _TOOLS.values()
        ]
        return (
            f" ({path} is setuid, which is not enough in a container without CAP_SYS_ADMIN)",
            f"build as root of the container, or, as root in its image: {' && '.join(both)}",
        )
    return "", f"check /etc/sub{kind}, and that {path} is setuid root or has {capability}=ep"
