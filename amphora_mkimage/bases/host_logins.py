"""The logins by which this host's own apt reaches its mirror, for builds that use that mirror (apt_auth.conf(5))."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from amphora_mkimage import process


@dataclass(frozen=True)
class Logins:
    """What was found.

    :param lines: of apt_auth.conf(5); secret
    :param unread: files that only others may read
    """

    lines: tuple[str, ...] = field(default=(), repr=False)
    unread: tuple[str, ...] = ()


def read(urls: Iterable[str]) -> Logins:
    """Read the entries for the hosts of some URLs, and no others.

    :param urls: of the archives that this host's apt uses
    """
    hosts = {urlsplit(url).hostname for url in urls}
    lines, unread = [], []
    for path in _files():
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except PermissionError:
            unread.append(str(path))
            continue
        except OSError:
            continue
        lines += [line for host, line in _entries(text) if host in hosts]
    return Logins(tuple(lines), tuple(unread))


def _files() -> Iterator[Path]:
    """Yield the files that apt would read, in its order."""
    words = ["FILE", "Dir::Etc::netrc/f", "PARTS", "Dir::Etc::netrcparts/d"]
    done = subprocess.run(
        ["apt-config", "shell", *words], capture_output=True, text=True, env=process.environment(), check=False
    )
    found = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
    if found.get("FILE"):
        yield Path(found["FILE"])
    try:
        yield from sorted(Path(found["PARTS"]).glob("*.conf")) if found.get("PARTS") else ()
    except PermissionError:
        return


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield each entry with its host."""
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for part in re.split(r"(?:^|\s)machine\s+", text)[1:]:
        machine, *words = part.split()
        pairs = dict(zip(words[::2], words[1::2], strict=False))
        host = machine.partition("://")[2] or machine
        # An IPv6 address stands there without brackets, and its port after one more colon.
        name = host.partition("/")[0]
        name = re.sub(r":\d+$", "", name) if name.count(":") == 1 else name
        if "login" in pairs:
            yield name, f"machine {machine} login {pairs['login']} password {pairs.get('password', '')}\n"
