"""A completion script for bash, made from the parsers of the command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable
from pathlib import Path

from amphora_mkimage import cli, settings

_TEMPLATE = Path(__file__).with_name("files") / "completion.bash.in"


def script() -> str:
    """Give the script: options of each command, accepted values where there are a few, file names elsewhere."""
    words, values = [], []
    for name in cli.COMMANDS:
        parser = command_parser(name)
        flags = " ".join(flag for action in parser._actions for flag in action.option_strings)
        # `build` may be left out, so its options are those that nothing else matched; it comes first in COMMANDS.
        words.append(f'        {"*" if name == "build" else name}) options="{flags}" ;;')
        for action in actions(parser):
            choices = _choices(name, action)
            if choices:
                values.append(_branch("*" if name == "build" else name, action.option_strings, choices))
    text = _TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("@OPTIONS@", "\n".join((*words[1:], words[0])))
    return text.replace("@VALUES@", "\n".join(values)).replace("@COMMANDS@", " ".join(cli.COMMANDS))


def command_parser(name: str) -> argparse.ArgumentParser:
    """Make the parser of a command."""
    if name == "build":
        return cli.build_parser()
    parser = argparse.ArgumentParser(prog=f"amphora-mkimage {name}")
    importlib.import_module(cli._MODULES[name]).add_arguments(parser)
    return parser


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Give the options of a parser, without operands and the help."""
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def _choices(command: str, action: argparse.Action) -> tuple[str, ...]:
    if command != "build" or action.dest not in settings.BY_NAME:
        return tuple(map(str, action.choices or ()))
    if action.dest == "types":
        return settings.IMAGE_TYPES
    return settings.BY_NAME[action.dest].choices or ()


def _branch(command: str, flags: Iterable[str], choices: Iterable[str]) -> str:
    pattern = "|".join(f"{command}' {flag}'" for flag in flags)
    return f'        {pattern}) mapfile -t COMPREPLY < <(compgen -W "{" ".join(choices)}" -- "$word") && return ;;'
