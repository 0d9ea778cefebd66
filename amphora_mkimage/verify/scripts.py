"""Scripts of the guest: are they for everybody to run, and is their interpreter there?

Nothing of a guest is ever run. What can be told from outside is what the kernel looks at first: the mode, and the line
that names the interpreter (execve(2)).
"""

from __future__ import annotations

import re

from amphora_mkimage.verify.subject import Subject

_EVERYBODY = 0o555
_LINE_LIMIT = 256  # BINPRM_BUF_SIZE: the kernel reads no more


def interpreter(subject: Subject, path: str) -> str | None:
    """Give the interpreter that a script names; "" for what is not a script, None when there is no such interpreter."""
    line = subject.tree.read(path, size=_LINE_LIMIT).partition(b"\n")[0].decode(errors="replace")
    if not line.startswith("#!"):
        return ""
    match = re.match(r"#!\s*(\S+)(?:\s+(\S+))?", line)
    if match is None:
        return None
    name, argument = match.groups()
    if not subject.tree.is_executable(name):
        return None
    if name.rpartition("/")[2] == "env" and argument:
        return subject.program(argument)
    return str(name)


def problem(subject: Subject, path: str) -> str:
    """Tell why a program could not be run by everybody, or ""."""
    entry = subject.tree.entry(path)
    if entry is None or not entry.is_file:
        return "does not exist"
    if entry.permissions & _EVERYBODY != _EVERYBODY:
        return f"has mode {entry.permissions:04o}, not 0755"
    if interpreter(subject, path) is None:
        return "names an interpreter that is not there"
    return ""
