"""Which ids outside the ids of a user namespace are, and how they get there.

Root writes the map itself. An ordinary user has newuidmap(1) do it, within the ranges of subuid(5). Containers take
away what either needs: capabilities, ids, the power of setuid programs. Each of these has a remedy of its own, so
each is looked for. See user_namespaces(7), "Defining user and group ID mappings", and capabilities(7).
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import sub_ids
from amphora_mkimage.guest.sub_ids import IDS

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

    :raises HostError: the user has no name, no subordinate ids, or too few of them; or a container lacks what it takes
    """
    if _have("CapEff", "CAP_SETUID", "CAP_SETGID"):
        return IdMap(_identity("/proc/self/uid_map"), _identity("/proc/self/gid_map"), privileged=True)
    if not _have("CapBnd", "CAP_SETUID", "CAP_SETGID"):  # then no program has them, newuidmap included
        raise HostError(
            "CAP_SETUID and CAP_SETGID, which ids of other users take, are out of reach here (capability bounding set)",
            "run the container with --cap-add SETUID --cap-add SETGID (Kubernetes: capabilities.add)",
        )
    uid, gid = os.getuid(), os.getgid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError as error:  # a container may run us with an id that nobody has
        raise HostError(
            f"user id {uid} has no name (/etc/passwd), and newuidmap, which maps ids, serves only users with one",
            f"build as root of the container, or give the user a name there: useradd --uid {uid} NAME",
        ) from error
    sub_uids, sub_gids = sub_ids.of(sub_ids.User(name, uid, gid))
    for tool, _ in _TOOLS.values():
        if shutil.which(tool) is None:
            raise HostError(f"{tool} is not installed", "install the package uidmap (shadow-utils on RPM systems)")
    # Id 0 inside is the user outside: what the build writes into the cache and the output then belongs to the user.
    return IdMap(_in_a_row(uid, sub_uids), _in_a_row(gid, sub_gids), privileged=False)


def own() -> IdMap:
    """Map root to this user, and nobody else: a map that every user may write."""
    return IdMap(((0, os.getuid(), 1),), ((0, os.getgid(), 1),), privileged=True)


def write(id_map: IdMap, process: int) -> None:
    """Give a process that has just entered a user namespace its ids.

    :raises HostError: it was refused
    """
    if id_map.privileged and not _have("CapEff", "CAP_SETGID"):
        # Else nobody without the capability could map a group (user_namespaces(7)).
        Path(f"/proc/{process}/setgroups").write_text("deny", encoding="ascii")
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


def _identity(map_file: str) -> tuple[tuple[int, int, int], ...]:
    """Map every id below :data:`IDS` that exists here to itself.

    :raises HostError: too few ids exist in this container
    """
    here = sub_ids.existing(Path(map_file))
    rows = tuple((start, start, min(count, IDS - start)) for start, count in here if start < IDS)
    if sum(count for _, _, count in rows) < IDS:
        raise HostError(f"this container has fewer than {IDS} ids ({map_file})", sub_ids.more_ids(IDS))
    return rows


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
