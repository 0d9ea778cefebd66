"""``amphora-mkimage check``: try everything, print what was found, say what this host can do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from amphora_mkimage import streams
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, ExitStatus, MkimageError
from amphora_mkimage.probe import guests, namespaces, resources, tools
from amphora_mkimage.probe.outcome import Need, Outcome, Probe, Result

_VERIFY_AND_BOOT = (Need.VERIFY, Need.BOOT)


@dataclass(frozen=True)
class Check:
    """One row of the table.

    :param name: the thing to try
    :param needed_for: what cannot be done without it
    :param probe: tries it
    """

    name: str
    needed_for: tuple[Need, ...]
    probe: Callable[[Console], Outcome]


CHECKS: tuple[Check, ...] = (
    Check("user namespaces", (Need.BUILD,), namespaces.user_namespaces),
    Check("openat2", (Need.BUILD,), namespaces.openat2),
    *(Check(tool.name, tool.needed_for, tool.probe) for tool in tools.TOOLS),
    Check("requests module", (Need.BUILD,), tools.requests_module),
    Check("packaging module", (Need.BUILD,), tools.packaging_module),
    Check("pip", (Need.BUILD,), tools.pip),
    *(Check(name, (Need.BUILD,), probe) for name, probe in tools.keyrings()),
    Check("architectures", (Need.BUILD,), guests.other_architectures),
    Check("memory", (Need.BUILD,), resources.memory),
    Check("unnamed files", (Need.BUILD,), resources.unnamed_files),
    Check("guestfs module", (Need.VERIFY,), guests.guestfs_module),
    Check("appliance kernel", (Need.VERIFY,), guests.appliance_kernel),
    Check("appliance network", (Need.BUILD,), guests.appliance_network),
    Check("virtualisation", _VERIFY_AND_BOOT, guests.virtualisation),
    Check("UEFI firmware", (Need.BOOT,), guests.uefi_firmware),
)
LAUNCH = Check("appliance", (Need.VERIFY,), guests.launch)

_NAME_WIDTH = max(len(check.name) for check in (*CHECKS, LAUNCH))
_NEED_WIDTH = max(len(" ".join(check.needed_for)) for check in CHECKS)
_RESULT_WIDTH = max(len(result) for result in Result)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``check``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--launch", action="store_true", help="also start libguestfs' appliance, which takes half a minute without KVM"
    )


def run(arguments: argparse.Namespace, console: Console) -> ExitStatus:
    """Probe the host and print the report to standard output.

    :returns: OK; or HOST when something is missing without which no image can be built
    :raises BadValueError: a variable that chooses how to work has a value that means nothing
    """
    checks = (*CHECKS, LAUNCH) if arguments.launch else CHECKS
    found: list[Probe] = []
    for probe in probes(checks, console):
        found.append(probe)
        if not arguments.json:
            streams.result(render(probe))
    lacking = {need: blockers(found, need) for need in Need}
    if arguments.json:
        report = {**{str(need): not names for need, names in lacking.items()}, "probes": [asdict(p) for p in found]}
        streams.result(json.dumps(report, indent=2))
    else:
        streams.result("\n" + "\n".join(_verdict(need, names) for need, names in lacking.items()))
    return ExitStatus.HOST if lacking[Need.BUILD] else ExitStatus.OK


def probes(checks: Iterable[Check], console: Console) -> Iterator[Probe]:
    """Try each thing, in order."""
    for check in checks:
        outcome = _outcome(check, console)
        yield Probe(check.name, check.needed_for, outcome.result, outcome.reason, outcome.remedy)


def blockers(found: Sequence[Probe], need: Need) -> list[str]:
    """Name what makes something impossible."""
    return [p.name for p in found if need in p.needed_for and p.result in (Result.MISSING, Result.FAILED)]


def render(probe: Probe) -> str:
    """Give the line of a probe, and one with the remedy when there is something to do."""
    needs = " ".join(probe.needed_for)
    head = f"{probe.result:<{_RESULT_WIDTH}}  {probe.name:<{_NAME_WIDTH}}  {needs:<{_NEED_WIDTH}}  "
    line = head + probe.reason
    return f"{line}\n{' ' * (_RESULT_WIDTH + 2)}what to do: {probe.remedy}" if probe.remedy else line


def _outcome(check: Check, console: Console) -> Outcome:
    try:
        return check.probe(console)
    except BadValueError:
        raise
    except MkimageError as error:
        return Outcome(Result.MISSING, error.what, error.remedy)
    except Exception as error:  # whatever one probe meets, the others have something to say
        return Outcome(Result.FAILED, f"the probe broke: {type(error).__name__}: {error}")


def _verdict(need: Need, names: Sequence[str]) -> str:
    return f"{need + ':':<8}" + (f"no (missing: {', '.join(names)})" if names else "yes")
