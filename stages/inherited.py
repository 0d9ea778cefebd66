"""What an image of one's own brings that works against an amphora is taken out, with a note for each file.

Installers, packer and hardening roles leave it there: cloud-init switched off, a password in GRUB, disks that are gone,
modules and settings that are blocked. ``files/inherited.toml`` says which. It is done twice: before packages are
installed, because initramfs and GRUB would take it up, and here, because they may have brought more. The image is
hostile: it is read in bounds, and no link of it leads anywhere but into itself.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from amphora_mkimage.errors import BadValueError
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages import sysctl
from amphora_mkimage.stages.install import FILES
from amphora_mkimage.verify.guest_tree import GuestTree
from amphora_mkimage.verify.tree import TreeError

TABLE = FILES / "inherited.toml"
#: What was found before packages were installed, in a base that may come from the cache.
NOTES = "/var/lib/amphora-mkimage-inherited.json"
#: No configuration file of any package is larger; what is, is left to ``verify``.
_LIMIT = 1 << 20
_FOUND_LIMIT = 200
_YAML_KEY = re.compile(r"""^["']?([A-Za-z_][\w-]*)["']?\s*:""")
#: What belongs to the value above it though it starts at the margin: items of a list, comments, closing brackets.
_YAML_MORE = re.compile(r"^(?:\s|-|#|\]|\}|$)")

Rule = Mapping[str, Any]
Edit = Callable[[str, Rule, str], str]


class _Image:
    """The guest, and one reading of it until something is changed: a listing costs more than all that is done here."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.tree = GuestTree(guest)

    def changed(self) -> None:
        """Look anew."""
        self.tree = GuestTree(self.guest)


def applies(request: Request) -> bool:
    """Every image: the packages of a bootstrap are looked at, too."""
    return True


def run(guest: Guest, request: Request) -> list[str]:
    """Take it out; what was done, one line each."""
    found = json.loads(guest.read_file(NOTES)) if guest.is_file(NOTES) else []
    guest.rm_f(NOTES)
    whose = "DIB_LOCAL_IMAGE" if request.local_image else f"the image of {request.base.distribution}"
    return [f"{whose}: {line}" for line in [*found, *neutralise(guest)][:_FOUND_LIMIT]]


def before_packages(guest: Guest) -> None:
    """Take it out of an image that packages are to be installed in, and leave the notes for :func:`run`.

    :raises BadValueError: something cannot be taken out
    """
    guest.rm_rf(NOTES)  # whatever the image has there
    notes = neutralise(guest)
    if notes:
        guest.mkdir_p(NOTES.rpartition("/")[0])
        guest.write(NOTES, json.dumps(notes).encode())


def neutralise(guest: Guest) -> list[str]:
    """Take out all that the table names; what was done, one line each.

    :raises BadValueError: the image has something that only its owner can mend
    """
    notes: list[str] = []
    image = _Image(guest)
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    for rule in table["refuse"]:
        _refuse(image, rule)
    for rule in table["remove"]:
        notes += _remove(image, rule)
    for kind, edit in _EDITS.items():
        for rule in table[kind]:
            notes += _edit(image, rule, edit)
    return notes


def _refuse(image: _Image, rule: Rule) -> None:
    for path, text in _texts(image, rule):
        said = re.sub(r"#.*$", "", text, flags=re.MULTILINE)
        if re.search(rule["when"], said, re.MULTILINE) and not re.search(rule["lacks"], said):
            raise BadValueError(f"DIB_LOCAL_IMAGE: {path}: {rule['because']}", rule["remedy"])


# --- whole files -----------------------------------------------------------------------------------------------------


def _remove(image: _Image, rule: Rule) -> Iterator[str]:
    tree, guest = image.tree, image.guest
    texts = dict(_texts(image, rule)) if "matches" in rule else {}
    for path in list(_paths(tree, rule)):
        entry = tree.entry(path, follow=False)
        if entry is None or entry.is_directory:
            continue
        if "target" in rule and not (entry.is_link and re.search(rule["target"], entry.target)):
            continue
        if "matches" in rule and not re.search(rule["matches"], texts.get(path, ""), re.MULTILINE):
            continue
        guest.rm_f(path)
        if rule.get("links"):
            for link in list(_expanded(tree, f"/etc/systemd/system/*.*/{path.rpartition('/')[2]}")):
                guest.rm_f(link)
        image.changed()
        yield f"removed {_printable(path)}: {rule['because']}"


# --- parts of files --------------------------------------------------------------------------------------------------


def _edit(image: _Image, rule: Rule, edit: Edit) -> Iterator[str]:
    for path, text in list(_texts(image, rule)):
        edited = edit(text, rule, path)
        if edited == text:
            continue
        # Only what was there is written, with its mode and owner.
        real = image.tree.resolve(path)
        assert real is not None
        image.guest.write(real[0], edited.encode(errors="surrogateescape"))
        image.changed()
        gone = _difference(text, edited)
        yield f"took {_printable(gone)!r} out of {_printable(path)}: {rule['because']}"


def _without_lines(text: str, rule: Rule, path: str) -> str:
    """Return the text without the lines that match."""
    lines = []
    for line in text.splitlines(keepends=True):
        if re.search(rule["lines"], line):
            lines += [f"{rule['with']}\n"] if "with" in rule and line.strip() != rule["with"] else []
        else:
            lines.append(line)
    return "".join(lines)


def _without_keys(text: str, rule: Rule, path: str) -> str:
    """Return YAML without some keys of its top level, or nothing where it is not written a key a line."""
    wanted = re.compile(rule.get("matches", ""), re.IGNORECASE)
    if text.lstrip().startswith("{"):
        named = any(re.search(rf"""["']?\b{key}["']?\s*:""", text) for key in rule["keys"])
        return "" if named and wanted.search(text) else text
    kept: list[str] = []
    block: list[str] = []

    def end() -> None:
        key = _YAML_KEY.match(block[0]) if block else None
        if key is None or key[1] not in rule["keys"] or not wanted.search("".join(block)):
            kept.extend(block)

    for line in text.splitlines(keepends=True):
        if not _YAML_MORE.match(line):
            end()
            block = []
        block.append(line)
    end()
    return "".join(kept)


def _without_settings(text: str, rule: Rule, path: str) -> str:
    """Return sysctl.d(5) without what contradicts an amphora's settings."""
    ours = _our_settings()
    if path in {f"/etc/sysctl.d/{key}.conf" for key in ours}:
        return text  # the stage sysctl writes it
    kept = []
    for line in text.splitlines(keepends=True):
        key, separator, value = line.partition("=")
        key = key.strip().lstrip("-").replace("/", ".")
        unwanted = any(
            re.fullmatch(pattern, key) and value.split() == [bad] for pattern, bad in rule["unwanted"].items()
        )
        if not separator or key[:1] in "#;" or not (unwanted or (key in ours and value.split() != ours[key].split())):
            kept.append(line)
    return "".join(kept)


@functools.cache
def _our_settings() -> Mapping[str, str]:
    return sysctl.settings()


_EDITS: dict[str, Edit] = {"strip": _without_lines, "keys": _without_keys, "settings": _without_settings}


def _difference(before: str, after: str) -> str:
    """Return the first line that is gone, shortened, and how many others."""
    left = after.splitlines()
    gone = [line.strip() for line in before.splitlines() if line.strip() and line not in left]
    first = re.sub(r"(?i)(password\w*\s+).*", r"\1...", gone[0]) if gone else ""
    return first[:60] + (f" and {len(gone) - 1} more" if len(gone) > 1 else "")


# --- the image, in bounds --------------------------------------------------------------------------------------------


def _texts(image: _Image, rule: Rule) -> Iterator[tuple[str, str]]:
    """Read the files that a rule is about; not what is no regular file, or too large to be configuration."""
    tree = image.tree
    for path in _paths(tree, rule):
        try:
            entry = tree.entry(path)
            if entry is not None and entry.is_file and entry.size <= _LIMIT:
                yield path, tree.read(path).decode(errors="surrogateescape")
        except TreeError:
            continue


def _paths(tree: GuestTree, rule: Rule) -> Iterator[str]:
    found = dict.fromkeys(path for pattern in rule["paths"] for path in _expanded(tree, pattern))
    yield from (path for path in found if path.rpartition("/")[2] > rule.get("after", ""))


def _expanded(tree: GuestTree, pattern: str) -> Iterator[str]:
    """Expand a shell pattern; a path without one is itself, when it is there."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        below: list[str] = []
        for base in found:
            if set("*?[").intersection(part):
                names = tree.listdir(base or "/")
                below += [f"{base}/{name}" for name in names if fnmatch.fnmatchcase(name, part)]
            elif tree.entry(f"{base}/{part}", follow=False) is not None:
                below.append(f"{base}/{part}")
        found = below[:_FOUND_LIMIT]
    yield from found


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
