"""Whose fault a failure inside of an image is, where the image is the user's own."""

from __future__ import annotations

import re

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.request import Request

#: How failures of commands and files in a guest begin, see :mod:`amphora_mkimage.guest`.
IN_IMAGE = "in the image: "
#: What people put there; programs of the distribution, and what a build mounts, are not their doing.
_FILE = re.compile(r"(?<![\w/.-])/(?:etc|usr/local|opt|boot|root|srv)(?:/[\w.@+:~-]*[\w@+~-])+")
_PACKAGE = re.compile(r"error processing package (\S+)")


def explain(error: MkimageError, request: Request) -> MkimageError:
    """Return the failure with a remedy that says what of the user's own image it is about, else as it is."""
    if not request.local_image or error.remedy or not error.what.startswith(IN_IMAGE):
        return error
    lines = [error.what, *error.tail]
    packages = [match[1] for line in lines if (match := _PACKAGE.search(line))]
    files = [match[0] for line in lines for match in _FILE.finditer(line)]
    if files:
        what = f"has {files[0]}: mend it there, or remove it"
    elif packages:
        what = f"has the package {packages[0]}, whose script fails: mend or remove it there"
    else:
        what = "has settings that make this fail: run it there to see which"
    return type(error)(error.what, f"your image (DIB_LOCAL_IMAGE) {what}", tail=error.tail, log=error.log)
