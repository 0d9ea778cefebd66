"""The command line: ``amphora-mkimage [build]``, ``check``, ``verify``, ``boot``."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from amphora_mkimage import __version__, build, plan, request, settings
from amphora_mkimage.console import Console, forget, write
from amphora_mkimage.errors import BadValueError, ExitStatus, InterruptedBuildError, MkimageError
from amphora_mkimage.fetch.store import Store

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


#: Settings whose value may be a URL with a password in it.
_URLS = ("mirror", "image_mirror", "local_image", "agent_repository", "lib_repository", "constraints")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors of ours."""

    def error(self, message: str) -> NoReturn:
        raise BadValueError(message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status (:class:`~amphora_mkimage.errors.ExitStatus`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        try:
            return _dispatch(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a result has seen enough (--dry-run | head). What is left of it must not fail again at exit.
        forget(sys.stdout)
        return ExitStatus.OK
    except KeyboardInterrupt:
        _report(InterruptedBuildError("interrupted"))
        return ExitStatus.INTERRUPTED
    except MkimageError as error:
        _report(error)
        return error.status


def _dispatch(words: list[str]) -> int:
    command = words.pop(0) if words and words[0] in COMMANDS else "build"
    if command == "build":
        return _build(words)
    # Each command's imports are its own: verify works on hosts that cannot build, and the other way round.
    module = importlib.import_module(_MODULES[command])
    parser = _Parser(prog=f"amphora-mkimage {command}", description=COMMANDS[command])
    module.add_arguments(parser)
    arguments = parser.parse_args(words)
    return int(module.run(arguments, Console(trace=getattr(arguments, "trace", False))))


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of ``build`` from the table of settings."""
    parser = _Parser(
        prog="amphora-mkimage",
        description="Build an image of Octavia's amphora. "
        + " ".join(f"`amphora-mkimage {name}`: {text}." for name, text in COMMANDS.items() if name != "build"),
        epilog="Exit status: 0 built, 1 failed, 2 this host cannot build, 3 bad value, 130 interrupted.",
        allow_abbrev=False,
    )
    for setting in settings.SETTINGS:
        if not setting.flags:
            continue
        text = setting.help.replace("%", "%%")
        if setting.default and not setting.switch:
            text += f" (default: {setting.default})"
        if setting.later:
            text += "; refused today"
        if setting.variables:
            text += f" [{', '.join(variable.name for variable in setting.variables)}]"
        if setting.switch:
            parser.add_argument(*setting.flags, dest=setting.name, help=text, action="store_true", default=None)
        else:
            parser.add_argument(*setting.flags, dest=setting.name, help=text, metavar=setting.metavar)
    parser.add_argument("-v", "--version", action="version", version=f"amphora-mkimage {__version__}")
    return parser


def _build(words: list[str]) -> int:
    arguments = vars(build_parser().parse_args(words))
    notes: list[str] = []
    values = settings.resolve(arguments, dict(os.environ))
    wish = request.make(values, os.environ, notes.append)
    _tidy_environment()
    with tempfile.TemporaryFile(buffering=0) as unnamed:
        log = wish.log_file.open("wb", buffering=0) if wish.log_file else unnamed
        console = Console(log=log, trace=bool(values["trace"].value))
        for note in notes:
            console.warn(note)
        try:
            _run(plan.make(wish), console, dry_run=bool(values["dry_run"].value))
        except MkimageError as error:
            log.flush()
            error.log = str(wish.log_file or _keep_log(wish.cache_dir, Path(f"/proc/self/fd/{unnamed.fileno()}")))
            raise
        finally:
            if wish.log_file:
                log.close()
    return ExitStatus.OK


def _tidy_environment() -> None:
    """Keep secrets from the programs that we start, and let apt, which reads small letters only, see the proxies."""
    for setting in settings.SETTINGS:
        if setting.secret or setting.name in _URLS:
            for variable in setting.variables:
                os.environ.pop(variable.name, None)
    for name in ("https_proxy", "no_proxy"):
        if name not in os.environ and os.environ.get(name.upper()):
            os.environ[name] = os.environ[name.upper()]


def _run(work: plan.Plan, console: Console, *, dry_run: bool) -> None:
    guest = build.choose_guest(work.request, console)
    if dry_run:
        debs = build.resolve(work, console)
        print(work.describe(debs, Store(work.request.cache_dir, console.warn), guest))  # noqa: T201 (the result)
        return
    console.note(f"guest: {guest}")
    build.build(work, guest, console)
    for path in work.request.outputs.values():
        console.note(f"built {path} ({path.stat().st_size / 1e6:.0f} MB)")


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


def _report(error: MkimageError) -> None:
    """Print an error: what failed, the evidence, what to do, where the log is."""
    lines = [f"    {line}" for line in error.tail[-10:]]
    text = [f"amphora-mkimage: error: {error.what}", *lines]
    if error.remedy:
        text.append(f"  what to do: {error.remedy}")
    if error.log:
        text.append(f"  full log: {error.log}")
    write(sys.stderr, "\n".join([*text, ""]))
