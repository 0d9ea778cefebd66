"""Which of the host's pip settings count when the agent is fetched: how an index is reached, and not what it brings.

pip reads files and variables (pip's user guide, "Configuration"). Its indexes, login, proxy, CA bundle and time-outs
are the host's affair. What other installations on this host may be is not: the agent's versions are those of its lock
file or of its branch's constraints.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from amphora_mkimage import process, proxies
from amphora_mkimage.proxies import Proxies

#: Settings that are about other installations than this one, and what is said in their place where a file has them. A
#: variable takes precedence over a file; an empty one does not. Options of our command line need no entry.
_FOREIGN = {
    "CONSTRAINT": os.devnull,
    "BUILD_CONSTRAINT": "",
    "REQUIREMENT": os.devnull,
    "REQUIRE_VIRTUALENV": "0",
    "NO_BINARY": "",
    "ONLY_BINARY": "",
    "PREFER_BINARY": "0",
    "DEST": "",
    "UPLOADED_PRIOR_TO": "",
}
#: Those that nothing can be said in the place of. Whatever their value, pip from 26 on refuses --no-build-isolation
#: beside the one, and for the other asks the index for dates that not every index has.
_UNANSWERABLE = {"BUILD_CONSTRAINT", "UPLOADED_PRIOR_TO"}
_LINE = re.compile(r"(:env:|global|download)\.([a-z-]+)=(.*)")
_INDEXES = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS")


def environment(pip: Sequence[str]) -> dict[str, str]:
    """Return the environment for ``pip download``.

    :param pip: the words that start it
    """
    env = {
        name: value
        for name, value in process.environment().items()
        if not name.startswith("PIP_") or name.removeprefix("PIP_") not in _FOREIGN
    }
    said = _said(pip, env)
    if _UNANSWERABLE & said.keys():
        env |= {f"PIP_{name}": value for name, value in said.items() if name not in _FOREIGN}
        env["PIP_CONFIG_FILE"] = os.devnull  # of which pip's user guide says that no file at all is read
    else:
        env |= {f"PIP_{name}": value for name, value in _FOREIGN.items() if name in said and value}
    if said.get("NO_INDEX", "").lower() in ("1", "true", "yes", "on") and not said.get("FIND_LINKS"):
        env["PIP_NO_INDEX"] = "0"  # with nothing beside it, it leaves no place to fetch from
    urls = [word for name in _INDEXES for word in said.get(name, "").split() if "://" in word]
    return proxies.replace(env, Proxies.read(os.environ).environment(urls))


def _said(pip: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return what pip's files and variables say, by the variables' names; not logged, because it may hold passwords."""
    argv = [*pip, "--disable-pip-version-check", "config", "list"]
    # "user" in a file is about installations, and here it would hide all files but the user's.
    whole = {"PIP_USER": "0", "PIP_GLOBAL": "0", "PIP_SITE": "0"}
    done = subprocess.run(
        argv, env={**env, **whole}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in done.stdout.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            try:
                value = str(ast.literal_eval(match[3]))
            except (ValueError, SyntaxError):
                value = match[3]
            found[match[1]][match[2].replace("-", "_").upper()] = value
    return found["global"] | found["download"] | found[":env:"]
