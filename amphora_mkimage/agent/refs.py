"""Which ref of a repository is meant, and what was perhaps meant instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

#: A full id, SHA-1 or SHA-256.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: The beginning of one, as git abbreviates it.
SHORT = re.compile(r"[0-9a-f]{7,39}")
_BRANCH = re.compile(r"(?:refs/heads/|refs/remotes/origin/|origin/)?(.+)")


def is_exact(ref: str) -> bool:
    """Tell whether a repository can be asked for just this ref."""
    return ref == "HEAD" or ref.startswith("refs/")


def branch_of(ref: str) -> str:
    """Return the name of the branch or tag that a ref means, "" where it may be anything."""
    bare = _BRANCH.fullmatch(ref)
    name = bare[1] if bare else ref
    return "" if COMMIT.fullmatch(name) or SHORT.fullmatch(name) or is_exact(name) else name


def match(ref: str, listed: Mapping[str, str]) -> str:
    """Return the full name of a ref, "" when it is not there; a branch takes precedence over a tag.

    :param listed: ids by full name, as git-ls-remote(1) prints them. Of a clone they have the branches of where it was
        cloned from (refs/remotes), of which it may have no branch of its own.
    """
    names = [ref] if is_exact(ref) else []
    names += [f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/remotes/{ref}"]
    names.append(f"refs/remotes/origin/{ref}")
    return next((name for name in names if name in listed), "")


def similar(ref: str, listed: Mapping[str, str]) -> list[str]:
    """Name branches and tags that may have been meant: the same name below another one, or one with a typo."""
    wanted = branch_of(ref) or ref
    short = {re.sub(r"^refs/(heads|tags|remotes/origin)/", "", name).removesuffix("^{}") for name in listed}
    names = sorted(short - {"HEAD"})
    last = wanted.rpartition("/")[2]
    same = [name for name in names if name.rpartition("/")[2] == last]
    return same[:3] or difflib.get_close_matches(wanted, names, n=3, cutoff=0.8)
