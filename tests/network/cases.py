"""The cases of this directory, and what a tree has to make of them.

A case is a directory under ``cases/``: ``network_data.json`` as Nova writes it, and ``expected.toml`` with what is on
the other side of each card ([router.ethN]: addresses, lines for dnsmasq) and what has to come out ([card.ethN]).
``absent`` has the addresses of cards that are not there, ``vanishing`` the names of those that are not there at a
second boot; ``rendered.toml`` has what cloud-init writes for netplan and NetworkManager. A new case is a new directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from namespaces import run_case

CASES = sorted(path.parent for path in Path(__file__).parent.glob("cases/*/network_data.json"))
NAMES = [case.name for case in CASES]
#: Each case waits most of the time, for an address to be known as nobody else's, or for an answer.
_TOGETHER = 6

Reports = dict[str, Future[dict[str, Any]]]


def network_data(name: str) -> dict[str, Any]:
    """Return the config drive's network of a case."""
    data: dict[str, Any] = json.loads((CASES[NAMES.index(name)] / "network_data.json").read_text())
    return data


def expected(name: str, file: str = "expected.toml") -> dict[str, Any]:
    """Return what a case expects."""
    return tomllib.loads((CASES[NAMES.index(name)] / file).read_text())


def unpack(archive: Path, target: Path) -> Path:
    """Unpack an image's tar; for an ordinary user without its owners, which no case looks at."""
    target.mkdir(parents=True)
    owners = () if os.geteuid() == 0 else ("--no-same-owner",)
    # Device nodes and the like: an ordinary user cannot make them, and every case has a /dev of its own.
    subprocess.run(["tar", "-xpf", archive, "-C", target, "--exclude=./dev/*", *owners], check=True)
    return target


@contextmanager
def started(archive: Path, scratch: Path) -> Iterator[Reports]:
    """Start every case in the tree of an image's tar; a test waits for its own."""
    tree = unpack(archive, scratch / "tree")
    with ThreadPoolExecutor(_TOGETHER) as pool:
        yield {case.name: pool.submit(run_case, tree, case) for case in CASES}
        pool.shutdown(cancel_futures=True)
    shutil.rmtree(tree)


def check(reports: Reports, name: str) -> None:
    """Compare what came out of a case with what it expects."""
    report, case = reports[name].result(), expected(name)
    assert (report["cloud-init"], report.get("second boot", 0)) == (0, 0), report["log"]
    assert report["right"], f"{case['reason']}\nexpected {case['card']}\ngot {report['cards']}\n{report['log']}"
    # sshd is on these addresses, of whatever family and origin, and on no others.
    assert report["ssh"] == report["addresses"], f"sshd on {report['ssh']}, not {report['addresses']}\n{report['log']}"
    if case.get("names"):  # Nova appends its dhcp_domain, ".novalocal"; nothing asks DNS
        assert report["names"] == {"-s": "amphora-1", "-f": "amphora-1.novalocal"}
    said = [line for line in report["log"].splitlines() if line.startswith("amphora: ")]
    named = {word for line in said for word in line.split() if word.count(":") == 5}
    links = network_data(name)["links"]
    vanished = [
        link["ethernet_mac_address"] for link in links if f"eth{links.index(link)}" in case.get("vanishing", [])
    ]
    assert named == {*case.get("absent", []), *vanished}, said


def check_rendering(archive: Path, scratch: Path, renderer: str) -> None:
    """Compare what the cloud-init of an image writes for "netplan" or "NetworkManager" with what every case expects."""
    tree = unpack(archive, scratch / "tree")
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for case, report in zip(CASES, pool.map(lambda case: run_case(tree, case, renderer), CASES), strict=True):
            wanted = expected(case.name, "rendered.toml")[renderer]
            assert (report["cloud-init"], report["rendered"]) == (0, wanted), f"{case.name}:\n{report['log']}"
    shutil.rmtree(tree)
