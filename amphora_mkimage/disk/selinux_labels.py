"""SELinux labels, written into an ext4 filesystem that lies in a file.

A label is an extended attribute that only root of the initial user namespace may set (capabilities(7), xattr(7)), so a
tree that is made in a namespace has none, and mke2fs copies none. Labelling at the first boot instead would restart
every amphora once. So setfiles(8) of the image says what it would set, and debugfs(8) sets that in the finished
filesystem. In an appliance there is a root, and setfiles sets them itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.protocol import Guest

_CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts"
#: What went wrong where no label was found, and what to do.
NO_LABELS = ("the image's SELinux policy knows no labels", "check that selinux-policy-targeted is in it")
_WOULD = re.compile(r"Would relabel (/.*) from (?:<no context>|\S+) to (\S+:\S+:\S+:\S+)")
#: debugfs takes a command a line and knows no escape for these.
_IMPOSSIBLE = re.compile(r'["\n]')


def labels(guest: Guest) -> dict[str, str]:
    """Ask the image's policy for the label of everything in it.

    :raises MkimageError: setfiles is missing or knows no contexts
    """
    # -n: change nothing; -v: say what would change, which is all; -m: do not leave out mounts that cannot have labels;
    # -F: the user and level of what the policy says, too.
    output = guest.command(["setfiles", "-n", "-v", "-m", "-F", _CONTEXTS, "/"])
    found = {match[1]: match[2] for line in output.splitlines() if (match := _WOULD.fullmatch(line.strip()))}
    if not found:
        raise MkimageError(*NO_LABELS)
    return found


def relabel_command(tree: str, path: str) -> list[str]:
    """Give the command line that sets labels, for where root may.

    :param tree: where the image sees its own tree with nothing mounted in it
    :param path: of the image: what to label, with all below it
    """
    # -r: the policy knows the paths without what "tree" is. As in labels: -m or what has no label yet is passed over.
    return ["setfiles", "-m", "-F", "-r", tree, _CONTEXTS, f"{tree}{path}".rstrip("/")]


def write(filesystem: Path, offset: int, found: dict[str, str], scratch: Path, console: Console) -> None:
    """Write labels into an ext4 filesystem; paths that are not in it are passed over.

    :param filesystem: the disk
    :param offset: where the filesystem begins in it, in bytes
    :param scratch: directory for a file of ours
    :raises MkimageError: a label could not be written
    """
    commands = scratch / "labels"
    lines = [
        f'ea_set "{path}" security.selinux {label}\n' for path, label in found.items() if not _IMPOSSIBLE.search(path)
    ]
    commands.write_text("".join(lines), encoding="utf-8")
    argv = ["debugfs", "-w", "-f", str(commands), f"{filesystem}?offset={offset}"]
    # debugfs repeats every command, and ends with status 0 whatever they did.
    output = process.run(argv, console, what="cannot write the SELinux labels")
    problems = [line for line in output.splitlines() if line and not line.startswith(("debugfs:", "debugfs "))]
    problems = [line for line in problems if "File not found by ext2_lookup" not in line]
    if problems:
        raise MkimageError(f"cannot write the SELinux labels: {problems[0].strip()}", tail=problems[:20])
