"""The command line: ``amphora-mkimage [build]``, ``check``, ``verify``, ``boot``."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage import (
    __version__,
    build,
    build_report,
    failures,
    foreign_variables,
    plan,
    proxies,
    request,
    settings,
    streams,
    usage,
)
from amphora_mkimage.console import Console, clear_line, wrap
from amphora_mkimage.errors import DefectError, ExitStatus, InterruptedBuildError, MkimageError
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.parser import Parser
from amphora_mkimage.proxies import Proxies
from amphora_mkimage.setting import Setting

COMMANDS = {
    "build": "build an image (the default)",
    "check": "tell what this host can do, and what to install or allow",
    "verify": "tell whether an image is a complete amphora",
    "boot": "boot an image in qemu, without writing to it, and drive its agent as Octavia's controller would",
}


_MODULES = {
    "check": "amphora_mkimage.probe",
    "verify": "amphora_mkimage.verify.command",
    "boot": "amphora_mkimage.boot.command",
}


_STATUSES = "Exit status: 0 built, 1 failed, 2 this host cannot build, 3 bad value, 130 interrupted."
#: Settings whose value may be a URL with a password in it.
_URLS = (
    *("mirror", "security_mirror", "apt_sources", "image_mirror", "local_image"),
    *("agent_repository", "lib_repository", "constraints"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status (:class:`~amphora_mkimage.errors.ExitStatus`)."""
    streams.open_missing()
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        with failures.explained():
            return _dispatch(words)
    except KeyboardInterrupt:
        error: MkimageError = InterruptedBuildError("interrupted")
    except MkimageError as raised:
        error = raised
    if error.trace and not error.log:
        error.log = _keep_trace(error.trace)
    _report(error)
    return error.status


def _dispatch(words: list[str]) -> int:
    command = words.pop(0) if words and words[0] in COMMANDS else "build"
    if command == "build":
        return _build(words)
    # Each command's imports are its own: verify works on hosts that cannot build, and the other way round.
    module = importlib.import_module(_MODULES[command])
    parser = Parser(prog=f"amphora-mkimage {command}", description=COMMANDS[command])
    module.add_arguments(parser)
    arguments = parser.parse_args(words)
    console = Console(trace=getattr(arguments, "trace", False))
    try:
        return int(module.run(arguments, console))
    except KeyboardInterrupt as interrupt:
        # A boot may have taken long to come there, and its console is gone with it.
        raise InterruptedBuildError("interrupted", tail=[console.unfinished] * bool(console.unfinished)) from interrupt


def build_parser() -> Parser:
    """Make the parser of ``build`` from the table of settings."""
    others = [f"`amphora-mkimage {name}`: {text}." for name, text in COMMANDS.items() if name != "build"]
    parser = Parser(
        prog="amphora-mkimage",
        description=" ".join(["Build an image of Octavia's amphora.", *others]),
        epilog=f"{usage.variables_without_option()}\n\n{_STATUSES}",
        commands=COMMANDS,
    )
    for setting in settings.SETTINGS:
        if setting.flags:
            _add_option(parser, setting)
    parser.add_argument("-v", "--version", action="version", version=f"amphora-mkimage {__version__}")
    return parser


def _add_option(parser: Parser, setting: Setting) -> None:
    text = usage.meaning(setting)
    if setting.default and not setting.switch:
        text += f" (default: {setting.default})"
    if setting.variables:
        text += f" [{', '.join(variable.name for variable in setting.variables)}]"
    text = text.replace("%", "%%")
    if setting.repeated:
        parser.add_argument(*setting.flags, dest=setting.name, help=text, metavar=setting.metavar, action="append")
    elif setting.switch:
        parser.add_argument(*setting.flags, dest=setting.name, help=text, action="store_true", default=None)
    else:
        parser.add_argument(*setting.flags, dest=setting.name, help=text, metavar=setting.metavar)


def _build(words: list[str]) -> int:
    warnings: list[str] = []
    try:
        with failures.explained():
            _make(words, warnings)
    except (MkimageError, KeyboardInterrupt) as raised:
        error = raised if isinstance(raised, MkimageError) else InterruptedBuildError("interrupted")
        if error.trace and not error.log:
            error.log = _keep_trace(error.trace)
        if "--json" in words:
            streams.result(build_report.failed(error, warnings))
        raise error from raised.__cause__
    return ExitStatus.OK


def _make(words: list[str], warnings: list[str]) -> None:
    """Plan, and build unless only the plan is wanted.

    :param warnings: takes all that the user is warned of
    """
    arguments = vars(build_parser().parse_args(words))
    values = settings.resolve(arguments, dict(os.environ))
    notes: list[str] = []
    wish = request.make(values, os.environ, notes.append)
    _tidy_environment()
    with tempfile.TemporaryFile(buffering=0) as unnamed:
        log = wish.log_file.open("wb", buffering=0) if wish.log_file else unnamed
        console = Console(log=log, trace=bool(values["trace"].value))
        console.warnings = warnings
        for note in notes:
            console.warn(note)
        try:
            with failures.explained():
                as_json = bool(values["json"].value)
                _run(plan.make(wish), console, dry_run=bool(values["dry_run"].value), as_json=as_json)
        except MkimageError as error:
            log.write(error.trace.encode(errors="replace"))
            error.log = str(wish.log_file or _keep_log(wish.cache_dir, Path(f"/proc/self/fd/{unnamed.fileno()}")))
            raise
        finally:
            if wish.log_file:
                log.close()


def _tidy_environment() -> None:
    """Keep secrets from the programs that we start, and say in one way what the proxy variables say."""
    for setting in settings.SETTINGS:
        if setting.secret or setting.name in _URLS:
            for variable in setting.variables:
                os.environ.pop(variable.name, None)
    foreign_variables.forget(os.environ)
    settled = Proxies.read(os.environ).settled()
    for name in proxies.NAMES:
        os.environ.pop(name, None)
    os.environ.update(settled)


def _run(work: plan.Plan, console: Console, *, dry_run: bool, as_json: bool) -> None:
    guest = build.choose_guest(work.request, console)
    if dry_run:
        debs, store = build.resolve(work, console), Store(work.request.cache_dir, console.warn)
        facts = work.facts(debs, store, guest) | {"warnings": console.warnings} if as_json else {}
        streams.result(json.dumps(facts, indent=2) if as_json else work.describe(debs, store, guest))
        return
    console.note(guest.title)
    console.detail(f"guest: {guest}")
    images = build.build(work, guest, console)
    for kind, path in work.request.outputs.items():
        # Whoever uploads it to a cloud with the flavor of Octavia's guide must know before.
        needs = "" if kind == "tar" else f"; the flavor's disk: at least {work.request.size_gib} GiB"
        console.note(f"built {path} ({path.stat().st_size / 1e6:.0f} MB{needs})")
    if as_json:
        streams.result(build_report.built(images, console.warnings, time.monotonic() - console.started))


def _keep_log(cache_dir: Path, log: Path) -> Path | str:
    """Keep the log of a failed build; its path, or "" when it cannot be kept."""
    directory = cache_dir / "amphora-mkimage" / "logs"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix="failed-", suffix=".log", dir=directory)
        with os.fdopen(fd, "wb") as file:
            file.write(log.read_bytes())
    except OSError:
        return ""
    return name


def _interrupt(_signal: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep_trace(trace: str) -> str:
    """Keep where an error happened, where a command has no log; return the file's path, or "" when it cannot be."""
    try:
        fd, name = tempfile.mkstemp(prefix="amphora-mkimage-", suffix=".log")
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(trace)
    except OSError:
        return ""
    return name


def _report(error: MkimageError) -> None:
    """Print an error: what failed, the evidence, what to do, where the log is."""
    lines = [f"    {line}" for line in error.tail[-10:]]
    text = [wrap(f"amphora-mkimage: error: {error.what}", sys.stderr, 4), *lines]
    remedy, log = error.remedy, error.log
    if isinstance(error, DefectError):
        remedy, log = f"{remedy} with the log {log}" if log else f"{remedy}, and what led to it", ""
    if remedy:
        text.append(wrap(f"  what to do: {remedy}", sys.stderr, 4))
    if log:
        text.append(f"  full log: {log}")
    clear_line(sys.stderr)
    streams.write(sys.stderr, "\n".join([*text, ""]))
