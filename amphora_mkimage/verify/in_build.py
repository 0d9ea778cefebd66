"""The cheap half of the checks, on a tree that a build has just made and not yet published.

What costs little and needs no disk; :mod:`amphora_mkimage.verify.command` does the whole on the finished file. A
failure fails the build, with the words that ``verify`` would have had; a warning is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.verify import checks, expectations
from amphora_mkimage.verify.guest_tree import GuestTree
from amphora_mkimage.verify.image_file import GIB, ImageFile
from amphora_mkimage.verify.result import Finding, Outcome, Result
from amphora_mkimage.verify.subject import Subject

_SHOWN = 10


def check(guest: Guest, request: Request, console: Console) -> dict[str, int]:
    """Return how many checks ended how, by the name of the result.

    :param guest: finished, with its bootloader configured where a disk is wanted, and with nothing mounted in it
    :raises MkimageError: this is not a complete amphora
    """
    with console.step("check the amphora"):
        outcomes = checks.run_cheap(_subject(guest, request))
    for title, finding in _of(outcomes, Result.WARN):
        console.note(f"{title}: {_line(finding)}")
    failures = [(title, finding) for title, finding in _of(outcomes, Result.FAIL)]
    if failures:
        raise _failure(failures, request)
    return {str(result): count for result, count in Counter(outcome.result for outcome in outcomes).items()}


def _subject(guest: Guest, request: Request) -> Subject:
    disk = any(kind != "tar" for kind in request.types)
    size = request.size_gib * GIB
    image = ImageFile(Path(request.output.name), "raw" if disk else "tar", size, size)
    expected = expectations.of_settings(request.summary, agent=request.agent)
    return Subject(image, expected, building=GuestTree(guest))


def _of(outcomes: Sequence[Outcome], result: Result) -> list[tuple[str, Finding]]:
    return [(o.check.title, finding) for o in outcomes for finding in o.findings if finding.result is result]


def _failure(failures: Sequence[tuple[str, Finding]], request: Request) -> MkimageError:
    title, first = failures[0]
    remedy = first.remedy
    if request.local_image:
        remedy = f"in your image (DIB_LOCAL_IMAGE): {remedy or 'mend that'}"
    others = [_printable(f"{name}: {_line(finding)}") for name, finding in failures[1:]]
    what = f"the image is not a complete amphora: {title}: {first.detail}"
    return MkimageError(_printable(what), _printable(remedy), tail=others[:_SHOWN])


def _line(finding: Finding) -> str:
    return _printable(finding.detail + (f" -> {finding.remedy}" if finding.remedy else ""))


def _printable(text: str) -> str:
    """Show control characters of a hostile image's names as what they are, not to the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
