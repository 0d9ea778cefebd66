"""AppArmor loads the profiles of programs that are in the image, and no others.

Since version 4 the package brings a profile for each of a hundred desktop programs that want user namespaces; loading
them takes a third of an amphora's boot. A profile is switched off the documented way, by a link in disable/
(apparmor.d(5)), so that it works again once its program is installed and the link removed.
"""

from __future__ import annotations

import re

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat

_DIRECTORY = "/etc/apparmor.d"
#: The head of a profile that is not inside another: "profile NAME PATH flags=(...) {", or without the first two words
#: in the old style; name and path may be quoted and have globs.
_HEAD = re.compile(
    r"^(?:profile\s+(?:\"[^\"]*\"|\S+)\s+)?(\"(?:@\{|/)[^\"]*\"|(?:@\{|/)\S*)(?:\s+flags=\([^)]*\))?\s*\{\s*$",
    re.MULTILINE,
)
#: A profile without a path is entered from others only.
_NAMED = re.compile(r"^profile\s+\S+(?:\s+flags=\([^)]*\))?\s*\{\s*$", re.MULTILINE)
_VARIABLE = re.compile(r"^@\{(\w+)\}\s*=\s*(\S+)\s*$", re.MULTILINE)
#: What tunables/multiarch defines, wide enough for every architecture.
_TUNABLES = {"multiarch": "*-linux-gnu*"}


def applies(request: Request) -> bool:
    """Debian's family has AppArmor."""
    return not is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Disable each profile whose every attachment is a plain path at which there is nothing."""
    if not guest.is_dir(_DIRECTORY):
        return
    guest.mkdir_p(f"{_DIRECTORY}/disable")
    for name in guest.ls(_DIRECTORY):
        path = f"{_DIRECTORY}/{name}"
        if guest.is_file(path) and not _wanted(guest, guest.read_file(path).decode(errors="replace")):
            guest.ln_sf(path, f"{_DIRECTORY}/disable/{name}")


def _wanted(guest: Guest, profile: str) -> bool:
    """Tell whether a profile may apply to a program of the image; in doubt it does."""
    attachments = [match[1].strip('"') for match in _HEAD.finditer(profile)]
    if not attachments or _NAMED.search(profile):
        return True
    variables = {**_TUNABLES, **{match[1]: match[2] for match in _VARIABLE.finditer(profile)}}
    for name, value in variables.items():
        attachments = [attachment.replace(f"@{{{name}}}", value) for attachment in attachments]
    return any(_present(guest, attachment) for attachment in attachments)


def _present(guest: Guest, attachment: str) -> bool:
    paths = _alternatives(attachment)
    if any("@" in path for path in paths):
        return True  # a variable of a tunable: not ours to expand
    return any(guest.glob_expand(path.replace("**", "*")) for path in paths)


def _alternatives(pattern: str) -> list[str]:
    """Expand {a,b} as apparmor.d(5) does."""
    match = re.search(r"(?<!@)\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    choices = match[1].split(",")
    return [
        path for choice in choices for path in _alternatives(pattern[: match.start()] + choice + pattern[match.end() :])
    ]
