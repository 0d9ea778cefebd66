"""Do HAProxy's logs stay below what a disk holds: logrotate's configuration, and how often it is called."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Sequence

from amphora_mkimage.verify.result import Check, Finding, passed, warn
from amphora_mkimage.verify.subject import Subject

_LOG = "/var/log/haproxy.log"
_MAIN = "/etc/logrotate.conf"
_TIMER = "logrotate.timer"
_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
#: More than that fills a small disk between two looks.
_MOST_BYTES = 1 << 30
_UNIT_BYTES = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SCRIPTS = ("prerotate", "postrotate", "firstaction", "lastaction", "preremove")
#: What is not more often than once a day (systemd.time(7)).
_RARE = re.compile(r"(daily|weekly|monthly|quarterly|semiannually|(bi)?annually|yearly|.*\s\d+:\d+(:\d+)?)$")


def rotation(subject: Subject) -> Iterator[Finding]:
    """Check that a busy load balancer does not fill its disk within a day."""
    size = _bound(subject)
    times = _times(subject)
    if not times:
        yield warn(f"{_TIMER} is not enabled: no log is ever rotated", f"systemctl enable {_TIMER}")
        return
    often = any(not _RARE.match(time) for time in times)
    if size is None or size > _MOST_BYTES or not often:
        what = "has no size in logrotate's configuration" if size is None or size > _MOST_BYTES else ""
        when = "" if often else f"is looked at {' '.join(times)} only"
        yield warn(
            f"{_LOG} {' and '.join(filter(None, (what, when)))}: a busy load balancer fills its disk before that",
            f"maxsize 50M in {_MAIN}, and OnCalendar=hourly or more often in a drop-in of {_TIMER}",
        )
        return
    yield passed(f"{size >> 20} MiB, looked at {' '.join(times)}")


def _bound(subject: Subject) -> int | None:
    """Return the size at which the log is rotated; None without one."""
    default: int | None = None
    found: int | None = None
    for path in _files(subject):
        for paths, directives in _sections(subject.lines(path)):
            if any(fnmatch.fnmatchcase(_LOG, pattern) for pattern in paths):
                found = _size(directives, default)
            elif not paths and path == _MAIN:
                default = _size(directives, default)
    return found


def _files(subject: Subject) -> list[str]:
    lines = [line.split() for line in subject.lines(_MAIN)]
    included = [words[1].rstrip("/") for words in lines if len(words) == 2 and words[0] == "include"]
    return [_MAIN, *(path for place in included for path in subject.drop_ins(place, "*"))]


def _sections(lines: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Split a configuration into log files with their directives; those without files are defaults (logrotate(8))."""
    paths: list[str] = []
    body: list[str] | None = None
    in_script = False
    for line in lines:
        if in_script:
            in_script = line != "endscript"
        elif body is None and line[0] in '/"{':
            paths += line.replace("{", " ").replace('"', " ").split()
            body = [] if line.endswith("{") else None
        elif body is None:
            yield [], [line]
        elif line.startswith("}"):
            yield paths, body
            paths, body = [], None
        else:
            in_script = line in _SCRIPTS
            body.append(line)


def _size(directives: Sequence[str], default: int | None) -> int | None:
    for line in directives:
        match = re.fullmatch(r"(?:max)?size[\s=]+(\d+)([kMG]?)", line)
        if match:
            default = int(match[1]) * _UNIT_BYTES[match[2]]
    return default


def _times(subject: Subject) -> list[str]:
    """Return the OnCalendar= of the timer, drop-ins included; none when it does not run."""
    if _TIMER not in subject.enabled_units:
        return []
    units = [f"{directory}/{_TIMER}" for directory in _UNITS if subject.tree.is_file(f"{directory}/{_TIMER}")]
    drop_ins = {
        posixpath.basename(path): path
        for directory in _UNITS
        for path in subject.drop_ins(f"{directory}/{_TIMER}.d", "*.conf")
    }
    times: list[str] = []
    for path in [*units[-1:], *(drop_ins[name] for name in sorted(drop_ins))]:
        for line in subject.lines(path):
            match = re.match(r"OnCalendar\s*=\s*(.*)", line)
            if match:
                times = [*times, match[1].strip()] if match[1].strip() else []
    return times


CHECKS = (Check("services.log-rotation", "services", "HAProxy's logs are rotated by size, and often", rotation),)
