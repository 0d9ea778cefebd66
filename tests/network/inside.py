"""What runs in the namespaces of one case: the guest's tree with its cards, and a router behind each card.

Started by :mod:`namespaces`, as root of namespaces of its own; prints one JSON object. Nothing of it outlives them:
this is their first process.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

#: Longer than an address takes that somebody gives, on a busy machine too; a case that is right waits less.
PATIENCE = 60
UNIT = "usr/lib/systemd/system/{}"
_SEED = "var/lib/cloud/seed/config_drive/openstack/latest"
_SSH_ADDRESSES = "/usr/local/sbin/amphora-ssh-addresses"
_SSH_CONFIG = "etc/ssh/sshd_config.d/40-amphora-management-address.conf"
_META_DATA = {"uuid": "6f1d5a0e-0000-4000-8000-000000000001", "name": "amphora-1", "hostname": "amphora-1.novalocal"}
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def run(*argv: object) -> str:
    """Run a program of this machine, which has to succeed."""
    done = subprocess.run(
        [str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Guest:
    """The image's tree, to be written to, in this network namespace."""

    def __init__(self, tree: Path, place: Path) -> None:
        self.root, self.log, self.status = place / "root", "", 0
        for name in ("upper", "work", "root"):
            (place / name).mkdir()
        all_ids = Path("/proc/self/uid_map").read_text().split()[2] == str(2**32 - 1)
        options = f"lowerdir={tree},upperdir={place}/upper,workdir={place}/work{'' if all_ids else ',userxattr'}"
        run("mount", "-t", "overlay", "-o", options, "overlay", self.root)
        run("mount", "-t", "proc", "proc", self.root / "proc")
        run("mount", "-t", "sysfs", "sysfs", self.root / "sys")
        for name in ("run", "dev"):
            # Of a world-writable /dev with the sticky bit, another user's devices could not be opened with O_CREAT.
            run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.root / name)
        for name in ("null", "zero", "full", "random", "urandom", "tty"):  # none of this machine's disks
            (self.root / "dev" / name).touch()
            run("mount", "--bind", f"/dev/{name}", self.root / "dev" / name)

        self._stand_in_for_a_virtual_machine()

    def _stand_in_for_a_virtual_machine(self) -> None:
        """Replace the programs that ask the machine what it is: its UUID is the instance's, as under Nova.

        By that cloud-init knows a second boot for one, and reads its own copy of the drive.
        """
        if (self.root / "sys/class/dmi").exists():  # this machine's own
            run("mount", "-t", "tmpfs", "tmpfs", self.root / "sys/class/dmi")
        for name, line in (("dmidecode", f"echo {_META_DATA['uuid']}"), ("systemd-detect-virt", "exit 1")):
            self.write(f"usr/local/sbin/{name}", f"#!/bin/sh\n{line}\n")
            (self.root / "usr/local/sbin" / name).chmod(0o755)

    def command(self, *argv: str) -> tuple[int, str]:
        """Run a program of the image; its status and output."""
        done = subprocess.run(
            ["chroot", self.root, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=90, env=_ENVIRONMENT,
        )  # fmt: skip
        self.log += f"$ {' '.join(argv)} -> {done.returncode}\n{done.stdout}"
        return done.returncode, done.stdout

    def start(self, *argv: str) -> None:
        """Start a program of the image, which ends with the namespaces."""
        quiet = subprocess.DEVNULL
        subprocess.Popen(["chroot", self.root, *argv], stdin=quiet, stdout=quiet, stderr=quiet, env=_ENVIRONMENT)

    def write(self, path: str, content: str) -> None:
        """Write a file of the guest."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def has(self, path: str) -> bool:
        """Tell whether the image has a file."""
        return (self.root / path.lstrip("/")).exists()


def plug(network_data: dict[str, Any], absent: list[str]) -> list[str]:
    """Make a card for each link that is there; their names, in order."""
    cards: list[str] = []
    for link in network_data["links"]:
        if link["ethernet_mac_address"] in absent:
            continue
        number = len(cards)
        far = ("peer", "name", f"r{number}", "address", f"02:00:00:00:00:{number + 1:02x}")
        run("ip", "link", "add", f"eth{number}", "address", link["ethernet_mac_address"], "type", "veth", *far)
        cards.append(f"eth{number}")
    return cards


def answer(cards: list[str], routers: dict[str, Any], place: Path) -> None:
    """Put the other end of each card into a namespace that answers as the case says."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    inside = ("nsenter", "-t", str(holder.pid), "--net")
    run(*inside, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.forwarding=1")
    for number, card in enumerate(cards):
        device, router = f"r{number}", routers.get(card, {})
        run("ip", "link", "set", device, "netns", holder.pid)
        run(*inside, "ip", "link", "set", device, "mtu", 9000, "up")
        for address in router.get("addresses", []):
            run(*inside, "ip", "address", "add", address, "dev", device)
        if "dnsmasq" in router:
            # No option 26, and no MTU in router advertisements: what the guest has of it, it has of the config drive.
            config = [
                *("port=0", "bind-interfaces", "user=root", "group=", "log-facility=-", "no-resolv", "no-ping"),
                *("dhcp-authoritative", "leasefile-ro", f"interface={device}", f"ra-param={device},mtu:off,5,1800"),
                *router["dnsmasq"],
            ]
            (place / f"{device}.conf").write_text("\n".join(config) + "\n")
            with (place / f"{device}.log").open("w") as log:
                subprocess.Popen(
                    [*inside, "dnsmasq", "-k", f"--conf-file={place}/{device}.conf", f"--pid-file={place}/{device}"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip


def state(cards: list[str]) -> dict[str, Any]:
    """Return MTU, addresses and gateways of each card, as the kernel has them."""
    found: dict[str, Any] = {}
    for link in json.loads(run("ip", "-j", "address")):
        if link["ifname"] in cards:
            mine = [a for a in link["addr_info"] if a["scope"] == "global" and not a.get("tentative")]
            addresses = sorted(f"{a['local']}/{a['prefixlen']}" for a in mine)
            found[link["ifname"]] = {"mtu": link["mtu"], "addresses": addresses, "routes": []}
    for family in ("-4", "-6"):
        for route in json.loads(run("ip", "-j", family, "route")):
            if "gateway" in route:
                found[route["dev"]]["routes"].append(f"{route['dst']} via {route['gateway']}")
    return found


def as_expected(got: dict[str, Any], cards: dict[str, Any]) -> bool:
    """Tell whether every card is as the case says; routes that it "may" have are neither asked for nor refused."""
    return got.keys() == cards.keys() and all(
        (got[name]["mtu"], got[name]["addresses"]) == (card["mtu"], sorted(card["addresses"]))
        and set(card["routes"]) <= set(got[name]["routes"]) <= {*card["routes"], *card.get("may", ())}
        for name, card in cards.items()
    )


def render(guest: Guest) -> None:
    """Do what the boot does before any card is up: the unit before cloud-init, cloud-init's first stage."""
    unit = guest.root / UNIT.format("amphora-absent-cards.service")
    if unit.exists():
        (program,) = re.findall(r"^ExecStart=(\S+)$", unit.read_text(), re.MULTILINE)
        guest.command(program)
    guest.status = guest.command("cloud-init", "init", "--local")[0]


def boot_again(guest: Guest, vanishing: list[str]) -> int:
    """Render at a second boot of the same instance, when cloud-init has its own copy of the drive; its status."""
    for card in vanishing:
        run("ip", "link", "delete", card)
    mounts = Path("/proc/mounts").read_text()
    for mounted in re.findall(rf" ({re.escape(str(guest.root))}\S+/network_data\.json) ", mounts):
        run("umount", mounted)
    run("umount", guest.root / "run")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", guest.root / "run")
    render(guest)
    return guest.status


def bring_up(guest: Guest, cards: list[str], case: dict[str, Any]) -> dict[str, Any]:
    """Bring up what was rendered, by ifupdown; what came out."""
    if guest.has(_SSH_ADDRESSES):
        guest.start(_SSH_ADDRESSES, "follow")
    guest.command("ifup", "-a", "--read-environment")
    deadline = time.monotonic() + PATIENCE
    while not as_expected(got := state(cards), case["card"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    addresses = {address.partition("/")[0] for card in got.values() for address in card["addresses"]}
    report = {"cards": got, "right": as_expected(got, case["card"]), "addresses": sorted(addresses)}
    report["ssh"] = ssh_addresses(guest, addresses)
    if case.get("names"):
        report["names"] = host_names(guest)
    if "vanishing" in case and not guest.status:
        report["second boot"] = boot_again(guest, case["vanishing"])
    stanzas = sorted((guest.root / "etc/network/interfaces.d").iterdir())
    guest.log += "".join(path.read_text() for path in stanzas)
    return report


def ssh_addresses(guest: Guest, addresses: set[str]) -> list[str]:
    """Start sshd when it is told where to listen; where it listens."""
    file = guest.root / _SSH_CONFIG
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if file.exists() and {line.split()[1] for line in file.read_text().splitlines()} == addresses:
            break
        time.sleep(0.1)
    guest.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key")
    (guest.root / "run/sshd").mkdir(exist_ok=True)
    guest.command("/usr/sbin/sshd")
    # It goes into the background before it listens.
    deadline = time.monotonic() + PATIENCE
    while (found := listening()) != sorted(addresses) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def listening() -> list[str]:
    """Return the addresses on whose port of SSH something listens."""
    lines = run("ss", "-H", "-l", "-n", "-t", "sport = :22").splitlines()
    return sorted(line.split()[3].removesuffix(":22").strip("[]") for line in lines)


def host_names(guest: Guest) -> dict[str, str]:
    """Return what the machine says its name is, after cloud-init's module that writes /etc/hosts."""
    guest.command("cloud-init", "single", "--name", "update_etc_hosts", "--frequency", "always")
    return {option: guest.command("hostname", option)[1].strip() for option in ("-s", "-f")}


def netplan(guest: Guest) -> dict[str, Any]:
    """Return what cloud-init wrote for netplan, by card; netplan has to take it."""
    guest.status |= guest.command("netplan", "generate")[0]
    program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"
    text = guest.command("python3", "-c", program, "/etc/netplan/50-cloud-init.yaml")[1]
    cards: dict[str, Any] = json.loads(text)["network"]["ethernets"]
    return {name: {k: v for k, v in card.items() if k not in ("match", "set-name")} for name, card in cards.items()}


def network_manager(guest: Guest) -> dict[str, Any]:
    """Return what cloud-init wrote for NetworkManager, by card, as "section.key"."""
    cards = {}
    for path in sorted((guest.root / "etc/NetworkManager/system-connections").glob("cloud-init-*.nmconnection")):
        parser = configparser.ConfigParser()
        parser.read(path)
        name = path.stem.removeprefix("cloud-init-")
        sections = {section: parser[section] for section in ("ethernet", "ipv4", "ipv6") if section in parser}
        cards[name] = {f"{s}.{k}": v for s, keys in sections.items() for k, v in keys.items() if k != "mac-address"}
    return cards


RENDERED = {"netplan": netplan, "NetworkManager": network_manager}


def refuse_the_host(host: str) -> None:
    """End unless every namespace that the guest's programs change is our own: cloud-init renames the machine."""
    for pair in host.split(","):
        name, _, link = pair.partition("=")
        if str(Path(f"/proc/self/ns/{name}").readlink()) == link:
            raise SystemExit(f"this is the machine's own {name} namespace; namespaces.py makes others")


def main() -> None:
    """Bring a case up and report."""
    tree, directory, place = map(Path, sys.argv[1:4])
    refuse_the_host(sys.argv[4])
    case = tomllib.loads((directory / "expected.toml").read_text())
    network_data = json.loads((directory / "network_data.json").read_text())
    run("mount", "-t", "tmpfs", "tmpfs", place)
    guest = Guest(tree, place)
    run("ip", "link", "set", "lo", "up")
    cards = plug(network_data, case.get("absent", []))
    guest.write(f"{_SEED}/meta_data.json", json.dumps(_META_DATA))
    guest.write(f"{_SEED}/network_data.json", json.dumps(network_data))
    if sys.argv[5:]:
        render(guest)
        report = {"rendered": RENDERED[sys.argv[5]](guest)}
    else:
        answer(cards, case.get("router", {}), place)
        render(guest)
        report = bring_up(guest, cards, case)
    answers = "".join(path.read_text() for path in sorted(place.glob("r*.log")))
    json.dump({**report, "cloud-init": guest.status, "log": guest.log + answers}, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
