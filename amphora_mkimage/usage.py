"""What is said about the options and variables, in the help, the man page and docs/options.md alike."""

from __future__ import annotations

from amphora_mkimage import settings
from amphora_mkimage.bases import BASES
from amphora_mkimage.setting import Setting


def meaning(setting: Setting) -> str:
    """Return what a setting means, and which values it takes where these can be listed."""
    if setting.later:
        return f"{setting.help}; refused today: {setting.later}"
    if setting.unused:
        return f"{setting.help}; accepted and unused: it has no meaning without diskimage-builder"
    if setting.name == "release":
        return f"{setting.help}. {releases()}"
    return f"{setting.help}: {', '.join(setting.choices)}" if setting.choices else setting.help


def releases() -> str:
    """Return the releases of each base, those that share them together."""
    bases: dict[tuple[str, ...], list[str]] = {}
    for base in BASES.values():
        bases.setdefault(tuple(base.named()), []).append(base.name)
    return "; ".join(f"{', '.join(names)}: {', '.join(found)}" for found, names in bases.items())


def default(setting: Setting) -> str:
    """Return the default as a user would write it, or ""."""
    if isinstance(setting.default, bool):
        return str(setting.default) if not setting.switch else ""
    return setting.default or ""


def variables_without_option() -> str:
    """Return a heading, and two lines for each setting that only variables can give."""
    lines = ["variables without an option:"]
    for setting in settings.SETTINGS:
        if not setting.flags:
            value = default(setting)
            lines.append(f"  {', '.join(variable.name for variable in setting.variables)}")
            lines.append(f"      {meaning(setting)}" + (f" (default: {value})" if value else ""))
    return "\n".join(lines)
