"""What is written about the command line, made from the command line itself, so that it cannot lie.

``python -m amphora_mkimage.manpage`` prints the man page, with ``--markdown`` the table of options, with
``--completion bash`` a completion script; ``--write`` brings all three, and the table of docs/controllers.md, up to
date in a checkout. The prose around the generated parts stands in ``files/``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from amphora_mkimage import __version__, accelerator, cli, completion, controllers, settings, usage
from amphora_mkimage.bases import mirror
from amphora_mkimage.completion import actions, command_parser
from amphora_mkimage.errors import ExitStatus

FILES = Path(__file__).with_name("files")
REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS, MAN_PAGE, COMPLETION = "docs/options.md", "docs/amphora-mkimage.1", "docs/amphora-mkimage.bash"
CONTROLLERS = "docs/controllers.md"
#: The table of options stands between these.
TABLE_BEGIN, TABLE_END = "<!-- options: made by `make docs` -->", "<!-- end of options -->"
#: And the one of docs/controllers.md between these.
CONTROLLERS_BEGIN, CONTROLLERS_END = "<!-- controllers: made by `make docs` -->", "<!-- end of controllers -->"

_STATUS = {
    ExitStatus.OK: "Built; or verified and complete; or booted, running, and driven without an error.",
    ExitStatus.FAILED: "The build failed, or the image lacks something, or does not run.",
    ExitStatus.HOST: "This host cannot do it; check says what to install or allow.",
    ExitStatus.BAD_VALUE: "An option or variable has a value that cannot be used.",
    ExitStatus.INTERRUPTED: "Interrupted (SIGINT, SIGTERM or SIGHUP); nothing is left behind.",
}

#: Variables that are no settings of a build, because they describe the host.
_HOST_VARIABLES = {
    ", ".join(mirror.CA_VARIABLES): "CA bundle with which https mirrors are checked; the first that is set wins.",
    accelerator.OVERRIDE: "How verify and boot run guests: kvm, tcg, or auto (the default): try whether KVM works.",
}


def man_page() -> str:
    """Give the man page (man(7))."""
    parts = {
        "VERSION": escape(__version__),
        "SYNOPSIS": "\n.br\n".join(_synopsis(name) for name in cli.COMMANDS if name != "build"),
        "COMMANDS": _paragraphs((f"\\fB{escape(name)}\\fR", text) for name, text in cli.COMMANDS.items()),
        "OPTIONS": _paragraphs(_build_options()),
        "COMMAND_OPTIONS": "\n".join(
            f".SS Options of {name}\n{_options(command_parser(name))}" for name in cli.COMMANDS if name != "build"
        ),
        "ENVIRONMENT": _paragraphs((f"\\fB{escape(name)}\\fR", text) for name, text in environment().items()),
        "EXIT_STATUS": _paragraphs((f"\\fB{int(status)}\\fR", text) for status, text in _STATUS.items()),
    }
    return fill("amphora-mkimage.1.in", parts)


def markdown() -> str:
    """Return the table of options."""
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for setting in settings.SETTINGS:
        names = " ".join(f"`{flag}`" for flag in setting.flags)
        if names and setting.metavar:
            names += f" {setting.metavar}"
        variables = ", ".join(f"`{variable.name}`" for variable in setting.variables)
        default = usage.default(setting)
        rows.append(
            f"| {names} | {variables} | {f'`{default}`' if default else ''} | {_cell(usage.meaning(setting))} |"
        )
    rows += ["| `-v` `--version` | | | show the version |", "| `-h` `--help` | | | show the help |", ""]
    rows += ["| command | option | meaning |", "|---|---|---|"]
    for name in cli.COMMANDS:
        for action in actions(command_parser(name)) if name != "build" else ():
            option = " ".join((f"`{' '.join(action.option_strings)}`", *_value_name(action)))
            rows.append(f"| {name} | {_cell(option)} | {_cell(action.help or '')} |")
    return "\n".join(rows) + "\n"


def environment() -> dict[str, str]:
    """Give every variable that is read, with its meaning."""
    found = {}
    for setting in settings.SETTINGS:
        for number, variable in enumerate(setting.variables):
            later = [other.name for other in setting.variables[number + 1 :]]
            if setting.flags:
                text = f"{'The opposite of' if variable.inverted else 'As'} {setting.flags[0]}"
                text += f"; takes precedence over {', '.join(later)}." if later else "."
            elif number:
                text = f"As {setting.variables[0].name}, which takes precedence."
            else:
                default = usage.default(setting)
                text = _sentence(usage.meaning(setting)) + (f" Default: {default}." if default else "")
            found[variable.name] = text
    return found | _HOST_VARIABLES


def escape(text: str) -> str:
    r"""Escape text for roff (groff_char(7)).

    ``-`` is a hyphen unless it is written ``\-``; a line that starts with ``.`` or ``'`` would be a request.
    """
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    )
    text = text.replace("'", "\\(aq").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Put parts in place of their ``@NAME@`` in a file of ours."""
    return re.sub(r"@([A-Z_]+)@", lambda match: parts[match[1]], (FILES / template).read_text(encoding="utf-8"))


def write(repository: Path) -> None:
    """Bring the table of options, the man page and the completion script of a checkout up to date."""
    options = repository / OPTIONS
    options.write_text(with_table(options.read_text(encoding="utf-8")), encoding="utf-8")
    page = repository / CONTROLLERS
    page.write_text(with_controllers(page.read_text(encoding="utf-8")), encoding="utf-8")
    (repository / MAN_PAGE).write_text(man_page(), encoding="utf-8")
    (repository / COMPLETION).write_text(completion.script(), encoding="utf-8")


def with_table(document: str) -> str:
    """Return the document with the table as it should be now."""
    return _between(document, TABLE_BEGIN, TABLE_END, markdown())


def with_controllers(page: str) -> str:
    """Return the text of docs/controllers.md with the table as it should be now."""
    return _between(page, CONTROLLERS_BEGIN, CONTROLLERS_END, controllers.markdown())


def _between(text: str, begin: str, end: str, table: str) -> str:
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n{end}{after}"


def _synopsis(name: str) -> str:
    image = any(not action.option_strings for action in command_parser(name)._actions)
    operand = '.RI [ option " ...] " IMAGE' if image else '.RI [ option " ...]"'
    return f".B amphora-mkimage {name}\n{operand}"


def _build_options() -> Iterator[tuple[str, str]]:
    """Give the options of ``build``, from the settings rather than the parser: these know what is refused today."""
    for setting in settings.SETTINGS:
        if setting.flags:
            # Quoted: a default may be a dot.
            default = f' Default: "{usage.default(setting)}".' if usage.default(setting) else ""
            origin = f" Variable: {', '.join(variable.name for variable in setting.variables)}." * bool(
                setting.variables
            )
            yield (
                _tag(setting.flags, [setting.metavar] * bool(setting.metavar)),
                _sentence(usage.meaning(setting)) + default + origin,
            )
    yield _tag(("-v", "--version"), ()), "Show the version."
    yield _tag(("-h", "--help"), ()), "Show the help."


def _options(parser: argparse.ArgumentParser) -> str:
    return _paragraphs(
        (_tag(action.option_strings, _value_name(action)), (action.help or "").replace("%%", "%"))
        for action in actions(parser)
    )


def _tag(flags: Iterable[str], values: Iterable[str]) -> str:
    names = ", ".join(f"\\fB{escape(flag)}\\fR" for flag in flags)
    return names + "".join(f" \\fI{escape(value)}\\fR" for value in values)


def _value_name(action: argparse.Action) -> list[str]:
    if action.nargs == 0:
        return []
    if action.choices:
        return ["|".join(map(str, action.choices))]
    return [str(action.metavar or action.dest.upper())]


def _paragraphs(entries: Iterable[tuple[str, str]]) -> str:
    """Give tagged paragraphs; the tag is roff already, the text is not."""
    return "\n".join(f".TP\n{tag}\n{escape(_sentence(text))}" for tag, text in entries)


def _sentence(text: str) -> str:
    """Make a sentence; names of programs, such as "cloud-init", keep their small first letter."""
    first = text.partition(" ")[0]
    return (text if "-" in first else text[:1].upper() + text[1:]).rstrip(".") + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Print one of them, or write all."""
    parser = argparse.ArgumentParser(prog="python -m amphora_mkimage.manpage", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--markdown", action="store_true", help="print the table of options")
    what.add_argument("--completion", choices=("bash",), help="print a completion script")
    what.add_argument("--write", action="store_true", help="update docs/ of this checkout")
    arguments = parser.parse_args()
    if arguments.write:
        write(REPOSITORY)
    elif arguments.markdown:
        sys.stdout.write(markdown())
    elif arguments.completion:
        sys.stdout.write(completion.script())
    else:
        sys.stdout.write(man_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
