"""The directories of a build: made where they are missing, and gone again where nothing is left in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch import store


@dataclass
class Made:
    """Directories that were not there; a typo in their names shall leave nothing behind."""

    directories: list[Path] = field(default_factory=list)

    def make(self, directory: Path, flag: str) -> None:
        """Make a directory and its parents.

        :param flag: the option that names another
        :raises BadValueError: it cannot be made
        """
        missing = [place for place in (directory, *directory.parents) if not place.exists()]
        for place in reversed(missing):
            try:
                place.mkdir()
            except FileExistsError:
                continue  # another build's, which removes it if need be
            except OSError as error:
                self.remove()
                what = f"{flag}: the directory {place} cannot be made: {error.strerror}"
                raise BadValueError(what, f"name another with {flag}") from error
            self.directories.append(place)

    def remove(self) -> None:
        """Remove those that are empty, or hold the cache's own directories and nothing in them.

        No other directory in them is touched: it may be what another build has mounted something on.
        """
        for place in reversed(self.directories):
            ours = place / store.DIRECTORY
            for directory in (*ours.glob("*"), ours, place):
                with contextlib.suppress(OSError):
                    directory.rmdir()


@contextlib.contextmanager
def made(wanted: Iterable[tuple[Path, str]]) -> Iterator[Made]:
    """Make directories for the time of the block, or for good if something is in them at its end.

    :param wanted: each with the option that names it
    :raises BadValueError: one cannot be made
    """
    found = Made()
    try:
        for directory, flag in wanted:
            found.make(directory, flag)
        yield found
    finally:
        found.remove()
