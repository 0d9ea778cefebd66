"""What a setting is, and how its value is found: flag, else variable, else default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amphora_mkimage import suggest
from amphora_mkimage.errors import BadValueError

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


def parse_bool(text: str) -> bool:
    """Read a switch of the environment as diskimage-create.sh's users write them (True/False, 1/0)."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("expected True or False")


@dataclass(frozen=True)
class Variable:
    """An environment variable that gives a setting.

    :param inverted: the variable says the opposite of the setting (``DIB_OCTAVIA_AMP_USE_SSH`` against ``-n``)
    """

    name: str
    inverted: bool = False


@dataclass(frozen=True)
class Setting:
    """One thing that a user can ask for.

    :param name: attribute of the parsed arguments
    :param help: one sentence; the default is added to it where there is one
    :param flags: short and long option; empty for what only the environment can say
    :param variables: environment variables, first that is set wins
    :param metavar: what the help calls the value; "" makes the setting a switch
    :param noun: what an error calls the setting when nobody said it ("the cache directory")
    :param default: value when nothing is said
    :param choices: accepted values, None for free text
    :param refused: values that are known, and refused later with a reason; offered nowhere
    :param parse: reads the text of a variable or of an option (not called for the default)
    :param secret: never shown in a summary, plan, log or manifest
    :param unused: it has no meaning without diskimage-builder: accepted, and said to be unused
    :param later: what brings it, for what is recognised but refused today
    """

    name: str
    help: str
    flags: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    metavar: str = ""
    default: str | bool | None = None
    choices: tuple[str, ...] | None = None
    refused: tuple[str, ...] = ()
    parse: Callable[[str], object] = str
    secret: bool = False
    unused: bool = False
    later: str = ""
    noun: str = ""

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar


@dataclass(frozen=True)
class Value:
    """A setting's value and where it came from.

    :param origin: for messages: "-s", "AMP_IMAGESIZE", or where nobody said it, what names the setting and its default
    :param said: the user said it
    """

    value: object
    origin: str
    said: bool = True


def find(setting: Setting, argument: object, environ: Mapping[str, str]) -> Value:
    """Find the value of a setting.

    :param argument: what the command line says, None where it says nothing
    :raises BadValueError: it cannot be used
    """
    flag = setting.flags[0] if setting.flags else ""
    if argument is not None:
        return Value(_check(setting, argument, flag), flag)
    for variable in setting.variables:
        text = environ.get(variable.name, "")
        if not text:
            continue
        value = _check(setting, text, variable.name)
        return Value(not value if variable.inverted else value, variable.name)
    return Value(setting.default, _unsaid(setting), said=False)


def _unsaid(setting: Setting) -> str:
    """Name a setting that nobody said, so that its user learns what to say: by its option, else by its variable."""
    names = (*setting.flags, *(variable.name for variable in setting.variables))
    said = f"{names[0]}, default {setting.default}" if names else "default"
    return f"{setting.noun} ({said})" if setting.noun else said


def _check(setting: Setting, given: object, origin: str) -> object:
    if not isinstance(given, str):
        return given  # a switch on the command line
    try:
        value = setting.parse(given)
    except ValueError as error:
        raise BadValueError(f"{origin}: unusable value {given!r}: {error}") from error
    if setting.choices is not None and value not in (*setting.choices, *setting.refused):
        remedy = suggest.accepted(given, setting.choices, "accepted values")
        raise BadValueError(f"{origin}: unsupported value {given!r}", remedy)
    return value
