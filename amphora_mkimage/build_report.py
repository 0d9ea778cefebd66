"""The one object that ``--json`` prints at the end of a build, whichever end that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from amphora_mkimage.errors import ExitStatus, MkimageError


def built(images: Sequence[Mapping[str, object]], warnings: Sequence[str], seconds: float) -> str:
    """Return the report of a build that made its images.

    :param images: from :func:`amphora_mkimage.build.build`
    """
    return _object(ExitStatus.OK, images, warnings, seconds=round(seconds, 1))


def failed(error: MkimageError, warnings: Sequence[str]) -> str:
    """Return the report of one that did not."""
    told = {"what": error.what, "remedy": error.remedy, "tail": list(error.tail), "log": error.log}
    return _object(error.status, (), warnings, error=told)


def _object(status: ExitStatus, images: Sequence[Mapping[str, object]], warnings: Sequence[str], **more: object) -> str:
    document = {"status": int(status), "images": list(images), "warnings": list(warnings), **more}
    return json.dumps(document, indent=2)
