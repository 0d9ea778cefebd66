"""A build backend (PEP 517) that builds nothing: it hands out the metadata that a source distribution brings along.

`pip download` asks a source distribution for its metadata, for which it would run the project's own code here, with
build tools of any version. The file PKG-INFO at the top of every source distribution says the same (PEP 643).
"""

import pathlib


def prepare_metadata_for_build_wheel(metadata_directory: str, _config_settings: object = None) -> str:
    """Copy PKG-INFO to where pip looks for it, and name the directory."""
    text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8", errors="replace")
    fields = dict(line.split(": ", 1) for line in text.partition("\n\n")[0].splitlines() if ": " in line)
    name = f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
    directory = pathlib.Path(metadata_directory, name)
    directory.mkdir()
    directory.joinpath("METADATA").write_text(text, encoding="utf-8")
    return name


def build_wheel(*_arguments: object) -> str:
    """Refuse."""
    raise NotImplementedError("nothing is built on the host")
