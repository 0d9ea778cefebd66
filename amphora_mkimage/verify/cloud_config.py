"""cloud-init's configuration, as far as its top level: which file says what of which key.

No YAML parser: what is asked is whether a key is there, and words in its value. cloud.cfg is read first, then the
drop-ins by name; a later file takes precedence (cloud-init manual, "Configuration sources").
"""

from __future__ import annotations

import re

from amphora_mkimage.verify.subject import Subject

_MAIN = "/etc/cloud/cloud.cfg"
_KEY = re.compile(r"""^(["']?)([A-Za-z_][\w-]*)\1\s*:(.*)$""")
_FLOW_KEY = re.compile(r"""(?:^\s*\{|,)\s*["']?([A-Za-z_][\w-]*)["']?\s*:""")


def top_level(text: str) -> dict[str, str]:
    """Return the value of each key at the top level, as it is written, without comments."""
    lines = [re.sub(r"(?:^|\s)#.*$", "", line) for line in text.splitlines()]
    whole = "\n".join(lines).strip()
    if whole.startswith("{"):  # JSON, or YAML's flow style: every key may be one of the top level
        return {match[1]: whole[match.end() :] for match in _FLOW_KEY.finditer(whole)}
    values: dict[str, str] = {}
    current = ""
    for line in lines:
        match = _KEY.match(line)
        if match:
            current = match[2]
            values[current] = match[3].strip()
        elif current:
            values[current] += f"\n{line}"
    return values


def effective(subject: Subject) -> dict[str, tuple[str, str]]:
    """Return each key's value that counts, with the file that has it."""
    found: dict[str, tuple[str, str]] = {}
    for path in [_MAIN, *subject.drop_ins(f"{_MAIN}.d", "*.cfg")]:
        found.update({key: (value, path) for key, value in top_level(subject.tree.text(path)).items()})
    return found


def words(value: str) -> list[str]:
    """Return the words of a list, hyphens as underscores: cloud-init takes a module by either name."""
    return [word.replace("-", "_") for word in re.findall(r"\w[\w-]*", value)]
