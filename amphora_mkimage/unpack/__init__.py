"""Turn a verified, but still hostile file into a root filesystem tree.

A signature says who made a file, not that its maker's build was not tampered with, and images of one's own have none.
:func:`kind` tells what a file is; :func:`tar` and :func:`squashfs` unpack into a directory; :func:`plain` makes of
either a tar that is harmless to any program; :func:`disk` makes a tar of a disk image.
"""

from amphora_mkimage.unpack.disk_image import disk
from amphora_mkimage.unpack.extract import squashfs, tar
from amphora_mkimage.unpack.kinds import Kind, kind
from amphora_mkimage.unpack.plain import plain
from amphora_mkimage.unpack.stream import Limits

__all__ = ["Kind", "Limits", "disk", "kind", "plain", "squashfs", "tar"]
