"""What a setting is, and how its value is found: flag, else variable, else default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    :param beside: Octavia's script reads it beside the flag and the other variables, so no order of them is right: it
        is refused where it says something else
    :param words: what only this variable has, and what that means: the form that the script gives its own variables
    """

    name: str
    inverted: bool = False
    beside: bool = False
    words: Mapping[str, str | bool] = field(default_factory=dict)


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
    :param parse: reads the text of a variable or of an option (not called for the default)
    :param secret: never shown in a summary, plan, log or manifest
    :param repeated: the option may be given several times, and the value is a list
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
    parse: Callable[[str], object] = str
    secret: bool = False
    repeated: bool = False
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
    :raises BadValueError: it cannot be used, or two sources contradict each other
    """
    flag = setting.flags[0] if setting.flags else ""
    given = [] if argument is None else [Value(_check(setting, argument, flag), flag)]
    for variable in setting.variables:
        # What is overridden need not even be readable.
        if environ.get(variable.name) and (variable.beside or not given):
            given.append(_read(setting, variable, environ[variable.name]))
    for other in given[1:]:
        if other.value != given[0].value:
            what = f"{given[0].origin} and {other.origin} contradict each other"
            raise BadValueError(what, f"keep one; Octavia's script reads {other.origin} beside the other")
    return given[0] if given else Value(setting.default, _unsaid(setting), said=False)


def _unsaid(setting: Setting) -> str:
    """Name a setting that nobody said, so that its user learns what to say: by its option, else by its variable."""
    names = (*setting.flags, *(variable.name for variable in setting.variables))
    said = f"{names[0]}, default {setting.default}" if names else "default"
    return f"{setting.noun} ({said})" if setting.noun else said


def _read(setting: Setting, variable: Variable, text: str) -> Value:
    """Read the text of a variable."""
    if text in variable.words:
        return Value(variable.words[text], variable.name)
    value = _check(setting, text, variable.name)
    return Value(not value if variable.inverted else value, variable.name)


def _check(setting: Setting, given: object, origin: str) -> object:
    if not isinstance(given, str):
        return given  # a switch on the command line
    try:
        value = setting.parse(given)
    except ValueError as error:
        raise BadValueError(f"{origin}: unusable value {given!r}: {error}") from error
    if setting.choices is not None and value not in setting.choices:
        remedy = suggest.accepted(given, setting.choices, "accepted values")
        raise BadValueError(f"{origin}: unsupported value {given!r}", remedy)
    return value
