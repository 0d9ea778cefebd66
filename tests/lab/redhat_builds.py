"""Whole builds of Red Hat's family against the lab: how they find it, and which labels their files have."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from redhat import DISTRIBUTIONS
from serve import Site

from amphora_mkimage import process
from amphora_mkimage.console import Console

#: The directory of a mirror that holds what BASE_OS_MIRROR should name.
MIRRORS = {"fedora": "fedora/linux", "centos": "centos-stream", "rocky": "rocky"}
#: What the policy says of some files.
LABELS = {
    "/": "default_t",
    "/proc": "default_t",
    "/etc/shadow": "shadow_t",
    "/usr/sbin/haproxy": "haproxy_exec_t",
    "/boot/grub2/grub.cfg": "boot_t",
    "/var/lib/octavia": "var_t",
}


def environment(site: Site, name: str) -> dict[str, str]:
    """Give the variables that send a build to the lab."""
    distribution = DISTRIBUTIONS[name]
    return {
        "BASE_OS_MIRROR": f"{site.url}/{MIRRORS[name]}",
        "DIB_CLOUD_IMAGES": f"{site.url}/{Path(distribution.image).parent}",
        "DIB_CLOUD_IMAGES_KEYRING": str(site.root / f"{name}.gpg"),
        "no_proxy": "127.0.0.1",
    }


def check_labels(qcow2: Path, scratch: Path) -> None:
    """See in the disk itself that files have their labels; nothing is relabelled at the first boot.

    :param scratch: an empty directory
    """
    disk = scratch / "disk.raw"
    process.run(["qemu-img", "convert", "-O", "raw", str(qcow2), str(disk)], Console(), what="cannot convert")
    table = json.loads(subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True).stdout)
    offset = table["partitiontable"]["partitions"][-1]["start"] * 512

    def debugfs(*commands: str) -> list[str]:
        text = "".join(f"{command}\n" for command in commands)
        argv = ["debugfs", "-f", "-", f"{disk}?offset={offset}"]
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout.splitlines()

    for path, label in LABELS.items():
        assert any(f":object_r:{label}:s0" in line for line in debugfs(f'ea_list "{path}"')), path
    assert ".autorelabel" not in " ".join(debugfs("ls -l /"))
    disk.unlink()
