"""Run one case of this directory in namespaces of its own: no boot, and nothing of this machine's network.

What is real: the image's cloud-init, ifupdown, dhclient and sshd, in the image's tree; dnsmasq on the other side of a
veth pair; the kernel. What is not: systemd, which would order them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_INSIDE = Path(__file__).with_name("inside.py")
#: Those that the guest's programs change. cloud-init sets the host name, hence uts.
_NAMESPACES = {"net": "--net", "mnt": "--mount", "uts": "--uts", "ipc": "--ipc", "pid": "--pid"}


def run_case(tree: Path, directory: Path, renderer: str = "") -> dict[str, Any]:
    """Bring the network of a case up in a tree, which stays as it is.

    :param renderer: have cloud-init write for "netplan" or "NetworkManager" only, and bring nothing up
    :return: what ``inside.py`` reports: cards, ssh, names, cloud-init's status, a log
    """
    host = ",".join(f"{name}={Path(f'/proc/self/ns/{name}').readlink()}" for name in _NAMESPACES)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    with tempfile.TemporaryDirectory(prefix="network-") as place:
        done = subprocess.run(
            ["unshare", *user, *_NAMESPACES.values(), "--fork", "--kill-child", "--mount-proc",
             sys.executable, _INSIDE, tree, directory, place, host, *filter(None, [renderer])],
            capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
    assert done.returncode == 0, f"{directory.name}: {done.stdout}{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


if __name__ == "__main__":  # a case by hand: namespaces.py TREE CASE
    outcome = run_case(Path(sys.argv[1]), Path(__file__).with_name("cases") / sys.argv[2])
    sys.stdout.write(outcome.pop("log"))
    json.dump(outcome, sys.stdout, indent=1)
    sys.exit(not outcome["right"])
