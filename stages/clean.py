"""Nothing unique to this build or its host stays in the image.

Host keys, machine id and random seed would make every amphora the twin of every other; logs, caches and histories would
tell about the machine that built it.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import put

#: What the people who made an image of their own typed there.
_OF_PEOPLE = (".bash_history", ".sh_history", ".python_history", ".lesshst", ".viminfo", ".wget-hsts", ".cache")
_FILES = (
    "/etc/ssh/ssh_host_*",
    "/etc/*-",  # passwd-, group- and the like: copies that the account tools keep
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/lib/dbus/machine-id",
    "/var/lib/apt/lists/*",
    "/var/lib/cloud/*",
    "/var/lib/dhcp/*",
    "/var/lib/dpkg/*-old",
    "/var/cache/apt/*.bin",
    "/var/cache/apt/archives/*",
    "/var/cache/debconf/*-old",
    "/var/cache/ldconfig/*",
    *(f"{home}/{name}" for home in ("/root", "/home/*") for name in _OF_PEOPLE),
    "/tmp/*",
    "/tmp/.[!.]*",
    "/run/*",
    "/var/tmp/*",
)


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Remove, empty, and leave the machine id to the first boot."""
    for pattern in _FILES:
        for path in guest.glob_expand(pattern):
            guest.rm_rf(path)
    # Empty, not "uninitialized": with that word systemd applies presets at the first boot, which
    # would switch services on and off again (machine-id(5)).
    put(guest, "/etc/machine-id", b"", 0o444)
    # What systemd does on the first boot after an update of /usr (ldconfig, hwdb) was done by the packages.
    guest.command(["touch", "-r", "/usr", "/etc/.updated", "/var/.updated"])
    for name in guest.find("/var/log"):
        if guest.is_file(f"/var/log/{name}"):
            guest.truncate(f"/var/log/{name}")
