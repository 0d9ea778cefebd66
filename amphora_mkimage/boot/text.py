"""Text from the guest, which is not trusted: made fit for a terminal, and split into lines as it arrives."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

#: Cursor positioning begins a new line of thought: firmware and GRUB paint screens with it instead of line feeds.
_POSITION = re.compile(r"\x1b\[[0-9;]*[Hf]|\x1b\[2J|\x1bc")
#: Other control sequences (ECMA-48: CSI, OSC with its text, two-character escapes).
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: How much of an unfinished line is remembered. Prompts are short; a guest that never ends a line must not fill memory.
_PENDING = 4096


def clean(text: str) -> str:
    """Remove what a terminal would obey: control sequences and control characters, but not line feeds and tabs."""
    return _CONTROL.sub("", _SEQUENCE.sub("", _POSITION.sub("\n", text)))


class Follower:
    """Reads the lines that qemu appends to a file.

    A file, because qemu never waits for its reader then, and because the whole is still there when something goes
    wrong.

    :param path: the file; need not exist yet
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received = 0  #: bytes read so far
        self.pending = ""  #: what follows the last line feed, without control characters: prompts live here
        self._raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def forget(self) -> None:
        """Forget the unfinished line: what writes there has begun anew."""
        self.pending = self._raw = ""

    def lines(self) -> list[str]:
        """Return the lines completed since the last call, without control characters; empty ones are dropped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.received)
                data = file.read()
        except FileNotFoundError:
            return []
        self.received += len(data)
        # A sequence may be cut in two by the end of the data, so the unfinished line is kept raw and cleaned each time.
        *complete, self._raw = (self._raw + self._decoder.decode(data)).replace("\r", "\n").split("\n")
        self._raw = self._raw[-_PENDING:]
        # Cursor positioning may have split the unfinished line in turn; its last part is where a prompt would be.
        self.pending = clean(self._raw).rpartition("\n")[2]
        return [line for raw in complete for line in clean(raw).split("\n") if line.strip()]
