"""One configuration for each feature, written by the agent's own templates, given to the image's own HAProxy.

Both come from the image, so both run in it. The renderer needs little that an amphora has not: ``packaging``, which the
guest gets for that step, and the database's models, for which there is a stand-in. What it prints is somebody else's
word, and is read as such.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.agent import install
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request

_FILES = Path(__file__).with_name("files")
_SCRIPT, FEATURES = _FILES / "check_configurations.py", _FILES / "features.json"
_PLACE = "/run/amphora-check-configurations"
_PYTHONS = {
    "released": f"{install.VENV}/bin/python",
    "branch": f"{install.VENV}/bin/python",
    "package": "/usr/bin/python3",
}
_LONGEST = 300


@dataclass(frozen=True)
class Answer:
    """What the image said.

    :param haproxy: its version
    :param features: by name why it is refused, "" where it is taken
    """

    haproxy: str
    features: Mapping[str, str]

    @property
    def refused(self) -> list[str]:
        """A line for each feature that is refused."""
        return [f"{name}: {alert}" for name, alert in self.features.items() if alert]

    @property
    def facts(self) -> dict[str, object]:
        """What the manifest says."""
        return {"haproxy": self.haproxy, "features": {name: alert or "ok" for name, alert in self.features.items()}}


def check(request: Request, guest: Guest, console: Console) -> dict[str, object] | None:
    """Have the image's HAProxy check its agent's configurations; what the manifest says of it, None without an agent.

    :param guest: mounted
    :raises MkimageError: one is refused, and neither were controllers of another release named nor is it the
        distribution's agent
    """
    python = _PYTHONS.get(request.agent_source)
    if python is None:
        console.note("HAProxy's configurations are not checked: without the agent there is nobody to write them")
        return None
    with console.step("check HAProxy's configurations"):
        answer = _ask(guest, python)
    if not answer.refused:
        return answer.facts
    count = f"{len(answer.refused)} of {len(answer.features)} features"
    what = f"the image's HAProxy {answer.haproxy} refuses what its agent's own release of Octavia writes, for {count}"
    # The distribution pairs its agent with its HAProxy; there is no other pair to be had in that release.
    if not request.octavia_said and not request.agent_packages:
        as_it_is = f"--octavia {request.octavia or 'RELEASE'} takes it as it is"
        remedy = f"take another release of the base (-d) or of the agent; {as_it_is} (docs/controllers.md)"
        raise MkimageError(what, remedy, tail=answer.refused)
    names = ", ".join(name for name, alert in answer.features.items() if alert)
    console.warn(f"{what}: {names} (the manifest has its words; see docs/controllers.md)")
    return answer.facts


def _ask(guest: Guest, python: str) -> Answer:
    guest.rm_rf(_PLACE)
    guest.mkdir_p(f"{_PLACE}/made")
    try:
        for name, content in _files().items():
            guest.write(f"{_PLACE}/{name}", content)
        # -B: the byte code of what only this step imports has no place in an amphora.
        argv = [python, "-B", "-W", "ignore", f"{_PLACE}/{_SCRIPT.name}", f"{_PLACE}/{FEATURES.name}", f"{_PLACE}/made"]
        printed = guest.command(argv)
    except MkimageError as error:
        what = "the agent's templates cannot be rendered in the image"
        raise MkimageError(what, "the last line says what is missing", tail=error.tail) from error
    finally:
        guest.rm_rf(_PLACE)
    return read(printed, list(json.loads(FEATURES.read_text(encoding="utf-8"))))


def read(printed: str, features: Sequence[str]) -> Answer:
    """Read what the guest printed; nothing of it is believed but what has the form that it must have.

    :param features: names that must be there, in their order
    :raises MkimageError: it has another form
    """
    try:
        document = json.loads(printed.splitlines()[-1])
        version, answers = document["haproxy"], document["features"]
        if not (isinstance(version, str) and re.fullmatch(r"\d{1,3}(\.\d{1,4}){2}", version)):
            raise ValueError("no version")
        if not isinstance(answers, dict) or list(answers) != list(features):
            raise ValueError("other features")
        if not all(isinstance(alert, str) and len(alert) <= _LONGEST for alert in answers.values()):
            raise ValueError("answers that are not short texts")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        what = "what checked HAProxy's configurations in the image printed something else than its result"
        raise MkimageError(what, "the image's Python or site-packages are not what they should be") from error
    # No control characters: it is shown on a terminal.
    return Answer(version, {name: re.sub(r"[^ -~]", "?", alert) for name, alert in answers.items()})


def _files() -> dict[str, bytes]:
    try:
        packaging = importlib.import_module("packaging")
    except ModuleNotFoundError as error:
        what = "cannot render the agent's configurations: the Python package packaging is not installed"
        raise HostError(what, "install the package python3-packaging") from error
    directory, archive = Path(str(packaging.__file__)).parent, io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(directory.rglob("*.py")):
            file.write(path, f"packaging/{path.relative_to(directory)}")
    return {path.name: path.read_bytes() for path in (_SCRIPT, FEATURES)} | {"packaging.zip": archive.getvalue()}
