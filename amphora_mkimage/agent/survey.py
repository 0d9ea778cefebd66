"""Find out which Python each branch of octavia can be had for, and write that down.

``python -m amphora_mkimage.agent.survey --octavia CLONE --octavia-lib CLONE --requirements CLONE BRANCH...``

The clones are OpenStack's repositories. Each pair of a branch and a Python goes the way of a build up to the files
that it would install, against the package index that pip's configuration names; nothing is built.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from amphora_mkimage import process
from amphora_mkimage.agent import project, resolve, support
from amphora_mkimage.agent.branch import Branch, Checkout
from amphora_mkimage.agent.resolve import Target
from amphora_mkimage.agent.support import FILE, PYTHONS, BranchSupport
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.store import Store

_HEADER = """\
# Which Python each branch of octavia is for, and which it can be had for on amd64: the wheels of its constraints.
# Made by python -m amphora_mkimage.agent.survey; do not edit.
"""


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m amphora_mkimage.agent.survey", description=__doc__)
    for name in ("octavia", "octavia-lib", "requirements"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="CLONE")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="where the files are kept")
    parser.add_argument("branches", nargs="+", metavar="BRANCH")
    arguments = parser.parse_args()
    console = Console()
    store = Store(arguments.cache, console.warn)
    store.prepare()
    try:
        with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as name:
            found = [_look(branch, arguments, Path(name), store, console) for branch in arguments.branches]
    except MkimageError as error:
        print(error.what, *error.tail, sep="\n", file=sys.stderr)  # noqa: T201 (a command of its own)
        return int(error.status)
    FILE.write_text(_HEADER + "".join(map(support.render, found)), encoding="ascii")
    return 0


def _look(branch: str, arguments: argparse.Namespace, place: Path, store: Store, console: Console) -> BranchSupport:
    """Try every Python on one branch."""
    constraints = place / "upper-constraints.txt"
    constraints.write_text(_git(arguments.requirements, console, "show", f"{branch}:upper-constraints.txt"))
    wanted = Branch(
        Checkout("octavia", Location.parse(str(arguments.octavia)), branch, "-g"),
        Checkout("octavia-lib", Location.parse(str(arguments.octavia_lib)), branch, "DIB_REPOREF_octavia_lib"),
        Location.parse(str(constraints)),
    )
    archive = place / "files.tar"
    _git(arguments.octavia, console, "archive", "--format=tar", f"--output={archive}", branch)
    python = project.read_checkout(archive, "octavia").python
    lacking, modules, octavia = {}, {}, ""
    versions = [version for version in PYTHONS if python.contains(f"{version}.0")]
    for version in versions:
        try:
            agent = resolve.resolve(wanted, Target(version, "amd64", debian=True), store, console)
        except MkimageError as error:
            if " has no wheel for " not in error.what:
                raise
            lacking[version] = error.what.partition(" has no wheel")[0]
            continue
        octavia = agent.version
        if agent.modules:
            modules[version] = agent.modules
    return BranchSupport(branch, octavia, str(python), versions, lacking, modules)


def _git(clone: Path, console: Console, *words: str) -> str:
    return process.run(["git", "-C", str(clone), *words], console, what=f"cannot read {clone}")


if __name__ == "__main__":
    sys.exit(main())
