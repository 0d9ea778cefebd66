"""What somebody probably meant who wrote something that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], say: str = "{}") -> str:
    """Return "did you mean ...? ", or "" where nothing is near enough.

    :param say: how it is written on the command line
    """
    candidates = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return f"did you mean {say.format(candidates[near[0]])}? " if near else ""


def accepted(word: str, known: Iterable[str], head: str = "accepted") -> str:
    """Return what would have been accepted, and the nearest of it."""
    names = list(known)
    return f"{did_you_mean(word, names)}{head}: {', '.join(names)}"
