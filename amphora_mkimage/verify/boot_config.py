"""What a bootloader's configuration tells the machine to boot: GRUB 2, BLS entries, extlinux.

Not an interpreter of GRUB's language: distributions generate the file, and the few commands that name kernels,
initramfs and root filesystems stand one a line in it (GRUB manual, "Shell-like scripting" and "Commands"; Boot Loader
Specification; Syslinux wiki, "Config").
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_LINUX = ("linux", "linux16", "linuxefi")
_INITRD = ("initrd", "initrd16", "initrdefi")


@dataclass(frozen=True)
class BootEntry:
    """One thing that can be booted.

    :param kernel: path as the bootloader has it
    :param initrds: likewise
    :param options: the kernel's command line
    :param filesystem_uuids: of the filesystems that the bootloader searches for these files
    :param source: the file that says so
    :param unrestricted: GRUB asks nobody for a password before it
    """

    title: str
    kernel: str
    initrds: tuple[str, ...]
    options: str
    filesystem_uuids: tuple[str, ...]
    source: str
    unrestricted: bool = False

    def option(self, name: str) -> str | None:
        """Give the value of the last ``name=value`` on the command line, None without one."""
        values = [word.partition("=")[2] for word in self.options.split() if word.startswith(f"{name}=")]
        return values[-1] if values else None


@dataclass(frozen=True)
class GrubConfig:
    """A grub.cfg.

    :param search: UUIDs that it searches outside menu entries
    :param blscfg: it takes the entries from BLS files, too
    :param source: the file
    :param superusers: "yes" where it sets any, "user.cfg" where it does so if that file has a password, else ""
    """

    entries: tuple[BootEntry, ...]
    search: tuple[str, ...]
    blscfg: bool
    config_files: tuple[str, ...]
    source: str = ""
    superusers: str = ""


def parse_grub(text: str, source: str) -> GrubConfig:
    """Read a grub.cfg."""
    entries: list[BootEntry] = []
    search: list[str] = []
    blscfg = False
    config_files: list[str] = []
    open_entry: dict[str, list[str]] | None = None
    for words in _commands(text):
        command, arguments = words[0], words[1:]
        if command == "menuentry":
            open_entry = {"title": arguments[:1], "options": arguments[1:], "search": [], "linux": [], "initrd": []}
        elif command == "}" and open_entry is not None:  # inside an entry there are no other blocks with braces
            entries += _grub_entry(open_entry, search, source)
            open_entry = None
        elif command in _LINUX and open_entry is not None:
            open_entry["linux"] = arguments
        elif command in _INITRD and open_entry is not None:
            open_entry["initrd"] = arguments
        elif (command == "search" and "--fs-uuid" in arguments) or command == "search.fs_uuid":
            uuid = _searched(command, arguments)
            (search if open_entry is None else open_entry["search"]).extend(uuid)
        elif command == "blscfg":
            blscfg = True
        elif command == "configfile":
            config_files += arguments[:1]
    return GrubConfig(tuple(entries), tuple(search), blscfg, tuple(config_files), source, _superusers(text))


def _superusers(text: str) -> str:
    """Tell whether users are set; Red Hat's 01_users sets them only where user.cfg has given a password."""
    conditions: list[str] = []
    found = ""
    for words in _commands(text):
        if words[0] == "if":
            conditions.append(" ".join(words))
        elif words[0] == "fi" and conditions:
            conditions.pop()
        elif words[0] == "set" and any(re.match(r"superusers=.", word) for word in words[1:]):
            by_file = any("GRUB2_PASSWORD" in condition for condition in conditions)
            found = found or "user.cfg" if by_file else "yes"
    return found


def _commands(text: str) -> list[list[str]]:
    """Split into commands; blocks' braces are commands of their own."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote that spans lines: no distribution writes one around what we look for
            words = line.split()
        current: list[str] = []
        for word in words:
            if word in (";", "{", "}"):
                commands += [current] if current else []
                commands += [["}"]] if word == "}" else []
                current = []
            else:
                current.append(word)
        commands += [current] if current else []
    return commands


def _searched(command: str, arguments: list[str]) -> list[str]:
    """Give the UUID that a search command names."""
    words = [a for a in arguments if not a.startswith("-")]
    if command == "search.fs_uuid":  # UUID VARIABLE
        return words[:1]
    return [w for w in words if re.fullmatch(r"[0-9A-Fa-f-]{4,36}", w)][-1:]


def _grub_entry(parts: dict[str, list[str]], search: list[str], source: str) -> list[BootEntry]:
    if not parts["linux"]:
        return []  # a firmware menu, a chain loader
    kernel, *options = parts["linux"]
    return [
        BootEntry(
            title="".join(parts["title"]),
            kernel=_without_device(kernel),
            initrds=_initrds(parts["initrd"]),
            options=" ".join(options),
            filesystem_uuids=tuple(parts["search"] or search),
            source=source,
            unrestricted="--unrestricted" in parts["options"],
        )
    ]


def _without_device(path: str) -> str:
    return re.sub(r"^\([^)]*\)|^\$\{?root\}?", "", path)


def _initrds(words: list[str]) -> tuple[str, ...]:
    # Fedora's entries end in $tuned_initrd, which is empty unless tuned made one.
    return tuple(_without_device(word) for word in words if not re.match(r"\$(?!\{?root)", word))


def parse_bls(text: str, source: str, variables: dict[str, str]) -> BootEntry | None:
    """Read one /boot/loader/entries/*.conf.

    :param variables: of the GRUB environment block, for ``$kernelopts``
    """
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            fields.setdefault(key, []).append(value.strip())
    if "linux" not in fields:
        return None
    options = " ".join(fields.get("options", []))
    options = re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match[1], ""), options)
    initrds = _initrds([word for value in fields.get("initrd", []) for word in value.split()])
    title = " ".join(fields.get("title", [])) or source
    unrestricted = "--unrestricted" in " ".join(fields.get("grub_arg", [])).split()
    return BootEntry(title, fields["linux"][0], initrds, options, (), source, unrestricted)


def parse_environment_block(text: str) -> dict[str, str]:
    """Read a grubenv (GRUB manual, "Environment block")."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in pairs if separator}


def parse_extlinux(text: str, source: str) -> list[BootEntry]:
    """Read an extlinux.conf or syslinux.cfg."""
    entries: list[dict[str, str]] = []
    for line in text.splitlines():
        words = line.split(None, 1)
        if len(words) < 2:
            continue
        key, value = words[0].lower(), words[1].strip()
        if key == "label":
            entries.append({"label": value})
        elif entries:
            entries[-1]["kernel" if key == "linux" else key] = value
    found = []
    for entry in entries:
        options = entry.get("append", "")
        named = re.findall(r"(?:^|\s)initrd=(\S+)", options) + entry.get("initrd", "").split()
        initrds = tuple(path for value in named for path in value.split(","))
        if "kernel" in entry:
            found.append(BootEntry(entry["label"], entry["kernel"], initrds, options, (), source))
    return found
