"""Which guest a build runs in: a namespace where the host allows it, else libguestfs' appliance.

A namespace is preferred even where KVM works: no start, no second kernel, the host's page cache. What the host allows
is found by doing it (:mod:`amphora_mkimage.probe`), and holds until it reboots.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amphora_mkimage import verdicts
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, HostError, MkimageError
from amphora_mkimage.probe import guests, namespaces
from amphora_mkimage.probe.outcome import Outcome, Result

KINDS = ("namespace", "appliance")
#: Reason of a choice that is the user's.
ASKED = "asked for"
_NAME = "guest"
#: What changes the answer without a reboot, and is looked at on every use: rights and programs that somebody gives.
_INPUTS = (
    *(
        "/etc/subuid",
        "/etc/subgid",
        "/etc/nsswitch.conf",
        "/usr/bin/newuidmap",
        "/proc/self/uid_map",
        "/usr/bin/supermin",
        "/boot",
    ),
    *("/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)
_VARIABLES = ("SUPERMIN_KERNEL", "SUPERMIN_MODULES", "LIBGUESTFS_PATH")


@dataclass(frozen=True)
class Choice:
    """The guest that a build runs in.

    :param kind: "namespace" or "appliance"
    :param reason: one line that says why
    :param remedy: one line that says what would allow the better one, or ""
    """

    kind: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"

    @property
    def title(self) -> str:
        """Where the image is built, and why not in a namespace; the first line of a build."""
        if self.kind == "namespace":
            return "building in a user namespace"
        return f"building in libguestfs' appliance ({self.reason})"


def choose(wanted: str, console: Console) -> Choice:
    """Choose the guest.

    :param wanted: "auto", "namespace" or "appliance"; the latter two are believed without a trial
    :raises BadValueError: none of these
    :raises HostError: neither works here
    """
    if wanted in KINDS:
        return Choice(wanted, ASKED)
    if wanted != "auto":
        raise BadValueError(f"there is no guest called {wanted}", f"accepted values: auto, {', '.join(KINDS)}")
    key = verdicts.key(*_state(os.environ))
    cached = _from_fields(verdicts.recall(_NAME, key))
    if cached is not None:
        return cached
    with console.step("try what this host allows"):
        choice = _try(console)
    verdicts.keep(_NAME, key, asdict(choice))
    return choice


def _try(console: Console) -> Choice:
    """Try both, the better one first; a failure is not kept, because the user is about to mend it."""
    namespace = _probe(namespaces.user_namespaces, console)
    if namespace.result == Result.OK:
        return Choice("namespace", namespace.reason)
    for probe in (guests.guestfs_module, guests.appliance_kernel):
        appliance = _probe(probe, console)
        if appliance.result != Result.OK:
            raise HostError(
                f"this host can build neither in a namespace ({namespace.reason})"
                f" nor in an appliance ({appliance.reason})",
                namespace.remedy or appliance.remedy or "run `amphora-mkimage check`",
            )
    return Choice("appliance", f"no namespace can be had: {namespace.reason}", namespace.remedy)


def _probe(probe: Any, console: Console) -> Outcome:
    try:
        outcome: Outcome = probe(console)
    except MkimageError as error:
        return Outcome(Result.MISSING, error.what, error.remedy)
    except (OSError, RuntimeError) as error:  # a host that refuses in a way of its own
        return Outcome(Result.FAILED, str(error))
    return outcome


def _state(environ: Mapping[str, str]) -> list[object]:
    """Describe what the answer depends on: files by their time (those of /proc by their content), and variables."""
    state: list[object] = [environ.get(name, "") for name in _VARIABLES]
    for name in _INPUTS:
        path = Path(name)
        try:
            state.append(path.read_text().strip() if name.startswith("/proc/") else path.stat().st_mtime_ns)
        except OSError:
            state.append("-")
    return [*state, *_confinement()]


def _confinement() -> list[str]:
    """Describe what a container takes from us; another one with other options may share the cache and the boot."""
    kept = ("CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:")
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    masks = sum(point.startswith("/proc/") for point in points)
    return [*(line.replace("\t", "") for line in status if line.startswith(kept)), f"masks:{masks}"]


def _from_fields(fields: dict[str, Any] | None) -> Choice | None:
    try:
        choice = Choice(**(fields or {}))
    except TypeError:
        return None
    texts = (choice.reason, choice.remedy)
    return choice if choice.kind in KINDS and all(isinstance(text, str) for text in texts) else None
