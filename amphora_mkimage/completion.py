"""A completion script for bash, made from the parsers of the command line."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from amphora_mkimage import cli, settings
from amphora_mkimage.bases import BASES

_TEMPLATE = Path(__file__).with_name("files") / "completion.bash.in"


def script() -> str:
    """Return the script: options of each command, accepted values where there are a few, file names where one goes."""
    words, values = [], []
    for name in cli.COMMANDS:
        parser = command_parser(name)
        flags = " ".join(flag for action in parser._actions for flag in action.option_strings)
        operand = "yes" * any(not action.option_strings for action in parser._actions)
        # `build` may be left out, so its options are those that nothing else matched; it comes first in COMMANDS.
        pattern = "*" if name == "build" else name
        words.append(f'        {pattern}) options="{flags}" operand={operand} ;;')
        values += [_branch(pattern, action, _choices(name, action)) for action in actions(parser) if action.nargs != 0]
    text = _TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("@OPTIONS@", "\n".join((*words[1:], words[0])))
    # The branches of `build` match any first word, so they come last.
    values.sort(key=lambda branch: branch.lstrip().startswith("*"))
    return text.replace("@VALUES@", "\n".join(values)).replace("@COMMANDS@", " ".join(cli.COMMANDS))


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    if name == "build":
        return cli.build_parser()
    parser = argparse.ArgumentParser(prog=f"amphora-mkimage {name}")
    importlib.import_module(cli._MODULES[name]).add_arguments(parser)
    return parser


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options of a parser, without operands and the help."""
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def _choices(command: str, action: argparse.Action) -> tuple[str, ...]:
    if command != "build" or action.dest not in settings.BY_NAME:
        return tuple(map(str, action.choices or ()))
    if action.dest == "types":
        return settings.IMAGE_TYPES
    if action.dest == "release":
        return tuple(dict.fromkeys(name for base in BASES.values() for name in base.named()))
    return settings.BY_NAME[action.dest].choices or ()


def _branch(command: str, action: argparse.Action, choices: tuple[str, ...]) -> str:
    """Return the branch for the value of an option; nothing is offered where any word may stand."""
    pattern = "|".join(f"{command}' {flag}'" for flag in action.option_strings)
    if choices:
        several = "," * (action.dest == "types")
        what = f'_amphora_mkimage_words "{" ".join(choices)}" "$word" "{several}"'
    elif action.metavar in ("FILE", "DIR"):
        what = f'_amphora_mkimage_files -{"f" if action.metavar == "FILE" else "d"} "$word"'
    else:
        what = ":"
    return f"        {pattern}) {what}; return ;;"
