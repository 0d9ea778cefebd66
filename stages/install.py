"""Put files of ours into the image."""

from __future__ import annotations

from pathlib import Path

from amphora_mkimage.guest.protocol import Guest

FILES = Path(__file__).with_name("files")


def install(guest: Guest, path: str, mode: int = 0o644) -> None:
    """Install ``files/<path>`` as ``/<path>``, owned by root.

    :param path: relative; the same under ``files/`` and in the image
    :param mode: permission bits
    """
    put(guest, f"/{path}", (FILES / path).read_bytes(), mode)


def put(guest: Guest, path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file of root's, with its parents.

    :param path: absolute, in the image
    :param mode: permission bits
    """
    guest.mkdir_p(path.rpartition("/")[0] or "/")
    guest.write(path, content)
    guest.chown(0, 0, path)
    guest.chmod(mode, path)
