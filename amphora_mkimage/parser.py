"""A parser of command lines whose complaints are errors of ours, and say what was probably meant."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from typing import NoReturn

from amphora_mkimage import streams, suggest
from amphora_mkimage.errors import BadValueError


class _Formatter(argparse.HelpFormatter):
    """Wraps at blanks only, as names have hyphens, and each line of a longer text for itself."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + self._filled(line, width - len(indent)) for line in text.splitlines())

    def _filled(self, line: str, width: int) -> str:
        lead = line[: len(line) - len(line.lstrip())]
        return textwrap.fill(line, width, subsequent_indent=lead, break_on_hyphens=False, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """Like argparse's.

    :param commands: what the first word may be, for a parser of the command that may be left out
    """

    def __init__(self, *, prog: str, description: str, epilog: str = "", commands: Iterable[str] = ()) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self._commands = tuple(commands)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        :raises BadValueError: always
        """
        raise BadValueError(message, f"see {self.prog} --help")

    # Narrower than argparse's, which takes any object as the namespace.
    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse the command line.

        :raises BadValueError: it cannot be understood
        """
        arguments, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown[0])
        return arguments

    def _refuse(self, word: str) -> NoReturn:
        if word.startswith("-"):
            name = word.partition("=")[0]
            near = suggest.did_you_mean(name, self._option_string_actions, f"{self.prog} {{}}")
            raise BadValueError(f"there is no option {name}", f"{near}see {self.prog} --help")
        if not self._commands:
            raise BadValueError(f"{word!r} is one word too many", f"see {self.prog} --help")
        near = suggest.did_you_mean(word, self._commands, f"{self.prog} {{}}")
        raise BadValueError(f"there is no command {word!r}", f"{near}commands: {', '.join(self._commands)}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            raise BadValueError(
                f"{action.option_strings[0]}: unsupported value {str(value)!r}",
                suggest.accepted(str(value), map(str, action.choices), "accepted values"),
            )

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002 (argparse's)
        """Print the help or the version; nothing else is printed by a parser whose errors are exceptions."""
        streams.result(message.rstrip("\n"))
