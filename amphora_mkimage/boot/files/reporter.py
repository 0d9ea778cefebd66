#!/usr/bin/env python3
"""Runs inside the booted image and tells the host, one JSON object a line, how the boot went.

cloud-init runs this file as a boothook of the user data, in its network stage. A boothook must return before the boot
can go on, so it hands the work to a transient service that does not wait for anything; that service then watches the
boot. Only what every image with cloud-init has is used: its Python (3.9 is the oldest in use) and systemd.

The lines go to the second serial port of a PC, which needs no agent, no network and no kernel module: the driver of the
8250 is built into every distribution's kernel. Other machines have one serial port only, and a virtio port besides.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

#: The first that is there; udev makes the links of virtio ports by their names.
PORTS = (Path("/dev/virtio-ports/amphora-mkimage.reports"), Path("/dev/ttyS1"))
PORT_SECONDS = 120
#: The configuration that the host sent through the config drive.
HAPROXY_CONFIG = "/etc/haproxy/amphora-mkimage-boot.cfg"
#: Its presence: try that configuration although the image has an agent.
OWN_CONFIG = Path("/etc/haproxy/amphora-mkimage-boot.own")
#: Octavia's unit for haproxy loads this second file when the amphora has one.
HAPROXY_GROUP = "/var/lib/octavia/haproxy-default-user-group.conf"
#: Written by the runcmd of the user data, which is the mechanism that Octavia's own user data relies on.
RUNCMD_MARK = Path("/run/amphora-mkimage-runcmd")
AGENT_UNITS = ("amphora-agent.service", "octavia-agent.service")
#: Units of our own start with this and are not reported.
PREFIX = "amphora-mkimage-"
WAIT_SECONDS = 10
LOOK_SECONDS = 2
#: Failed units are listed at every so many looks while the host drives the agent: it costs processor time.
UNITS_EVERY = 10
#: The agent keeps the configuration of each load balancer here.
BALANCERS = Path("/var/lib/octavia")
JOURNAL_LINES = 12
CARDS = Path("/sys/class/net")
#: The agent's network namespace (octavia.common.constants, AMPHORA_NAMESPACE).
NAMESPACE = "amphora-haproxy"
TIMESTAMPS = ("Firmware", "Loader", "InitRD", "Userspace", "Finish")


def send(event: str, **fields: object) -> None:
    """Write one event; ASCII only, so that no terminal setting of the port can change it."""
    with find_port().open("w") as port:
        port.write(json.dumps({"event": event, **fields}) + "\n")


def find_port() -> Path:
    """Find the port to the host; the driver of a virtio port may still be loading."""
    for _ in range(PORT_SECONDS):
        for port in PORTS:
            if port.is_char_device():
                return port
        time.sleep(1)
    raise OSError("there is no port to report to")


def output(*argv: str) -> tuple[int, str]:
    """Run a command; its status and what it printed. The status of a command that is missing is 127."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def lines(*argv: str) -> list[str]:
    """Run a command and return the lines that it printed."""
    return output(*argv)[1].splitlines()


def wait_for_boot() -> str:
    """Wait until systemd has no start job left and return its state; say meanwhile which jobs are being waited for."""
    while True:
        waiting = subprocess.Popen(("systemctl", "is-system-running", "--wait"), stdout=subprocess.PIPE)
        while True:
            try:
                state = waiting.communicate(timeout=WAIT_SECONDS)[0].decode().strip()
                break
            except subprocess.TimeoutExpired:
                send("waiting", jobs=running_jobs())
        if state not in ("initializing", "starting"):
            return state


def running_jobs() -> list[str]:
    """List the units whose start jobs run now, as opposed to those that queue behind them."""
    rows = [row.split() for row in lines("systemctl", "list-jobs", "--no-legend", "--no-pager", "--full")]
    return [row[1] for row in rows if len(row) == 4 and row[3] == "running"]


def failed_units() -> list[dict[str, object]]:
    """List the failed units, each with the end of its journal."""
    rows = lines("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full")
    # Before systemd 246 the bullet is printed in spite of --plain.
    names = [row.lstrip("●* ").split()[0] for row in rows if row.strip("●* ")]
    return [{"unit": name, "journal": journal(name)} for name in names if not name.startswith(PREFIX)]


def journal(unit: str) -> list[str]:
    """Return the last lines that a unit logged."""
    options = ("--lines", str(JOURNAL_LINES), "--output", "cat", "--no-pager", "--quiet")
    return lines("journalctl", "--unit", unit, *options)


def timestamps() -> dict[str, int]:
    """When the phases of the boot ended, in microseconds of the monotonic clock (see systemd-analyze(1))."""
    names = [f"{name}TimestampMonotonic" for name in TIMESTAMPS]
    rows = lines("systemctl", "show", *(f"--property={name}" for name in names))
    pairs = [row.partition("=") for row in rows]
    return {key.replace("TimestampMonotonic", "").lower(): int(value or 0) for key, _, value in pairs}


def cloud_init() -> dict[str, object]:
    """Name the data source of cloud-init, and what went wrong, from the file that it writes at the very end."""
    runcmd = RUNCMD_MARK.exists()
    try:
        result = json.loads(Path("/run/cloud-init/result.json").read_text())["v1"]
    except (OSError, ValueError, KeyError) as error:
        return {"datasource": "", "errors": [str(error)], "runcmd": runcmd}
    errors = [str(error) for error in result.get("errors") or []]
    return {"datasource": str(result.get("datasource") or ""), "errors": errors, "runcmd": runcmd}


def network() -> dict[str, object]:
    """List the network cards, the routes of both families, and the cards that the agent has in its namespace."""
    cards = []
    for card in sorted(CARDS.iterdir()):
        try:
            mtu = int((card / "mtu").read_text())
            cards.append({"name": card.name, "mac": (card / "address").read_text().strip(), "mtu": mtu})
        except (OSError, ValueError):
            continue  # some drivers put files there
    routes = {f"ipv{version}": lines("ip", f"-{version}", "route", "show") for version in (4, 6)}
    status, inside = output("ip", "netns", "exec", NAMESPACE, "ip", "-oneline", "link")
    macs = re.findall(r"link/ether (\S+)", inside) if status == 0 else []
    return {"cards": cards, "routes": routes, "namespace": macs}


def release() -> str:
    """Return the name of the operating system."""
    for row in Path("/etc/os-release").read_text().splitlines():
        if row.startswith("PRETTY_NAME="):
            return row.partition("=")[2].strip("\"'")
    return ""


def agent() -> str | None:
    """Return the name of the amphora agent's unit when the image enables one."""
    for unit in AGENT_UNITS:
        if output("systemctl", "is-enabled", "--quiet", unit)[0] == 0:
            return unit
    return None


def haproxy() -> dict[str, object]:
    """Validate the host's configuration with the image's haproxy and start it, the way Octavia's unit does."""
    status, version = output("haproxy", "-v")
    if status != 0:
        return {"version": "", "valid": False, "started": False, "output": version.splitlines()}
    first = version.splitlines()[0]
    files = ["-f", HAPROXY_CONFIG]
    if Path(HAPROXY_GROUP).exists():
        files += ["-f", HAPROXY_GROUP]
    status, text = output("haproxy", "-c", *files)
    if status != 0:
        return {"version": first, "valid": False, "started": False, "output": text.splitlines()[-JOURNAL_LINES:]}
    unit = PREFIX + "haproxy.service"
    start = ["systemd-run", "--quiet", f"--unit={unit}", "--property=Type=notify"]
    status, text = output(*start, "haproxy", "-Ws", *files)
    said = text.splitlines() + journal(unit) if status != 0 else []
    return {"version": first, "valid": True, "started": status == 0, "output": said}


def watch() -> None:
    """Be the service: wait for the end of the boot, then report everything."""
    state = wait_for_boot()
    send("running", state=state)
    # The facts before haproxy: what we start must not change what is said of the boot.
    send(
        "facts",
        kernel=os.uname().release,
        os=release(),
        failed=failed_units(),
        timestamps=timestamps(),
        cloud_init=cloud_init(),
    )
    send("network", **network())
    name = agent()
    if name is None or OWN_CONFIG.exists():
        send("haproxy", **haproxy())
    send("blame", blame=lines("systemd-analyze", "blame", "--no-pager")[:20])
    send("end")
    if name is not None:
        watch_units()


def watch_units() -> None:
    """Report what fails while the host drives the agent, until it has deleted its load balancer."""
    looks, configured = 0, False
    known: list[object] = []
    while True:
        time.sleep(LOOK_SECONDS)
        looks += 1
        there = any(BALANCERS.glob("*/haproxy.cfg"))
        deleted, configured = configured and not there, configured or there
        if deleted:
            time.sleep(LOOK_SECONDS)  # the agent disables the unit after it has removed the configuration
        if not deleted and looks % UNITS_EVERY:
            continue
        failed = failed_units()
        names = [unit["unit"] for unit in failed]
        if deleted or names != known:
            send("units", failed=failed, deleted=deleted)
        if deleted:
            return
        known = names


def main() -> None:
    """Run as the boothook without an argument, and as the service with one."""
    if sys.argv[1:] == ["watch"]:
        watch()
        return
    send("started", agent=agent())
    # DefaultDependencies=no: the service must not queue behind the targets that it observes, or a boot that hangs would
    # hang the reporter too. --no-block: the boothook itself runs before sysinit.target.
    start = ["systemd-run", "--quiet", "--no-block", f"--unit={PREFIX}reporter", "--property=DefaultDependencies=no"]
    status, text = output(*start, sys.executable, str(Path(__file__).resolve()), "watch")
    if status != 0:
        send("error", text=text)


main()
