"""The package database: dpkg's status file, or what librpm reads.

dpkg's is text (deb-policy 5; dpkg-query(1) for the states). RPM's is a binary database whose format changed twice; it
is read by librpm inside the appliance, where a crafted one can do no harm, and without running anything of the guest's.
"""

from __future__ import annotations

from dataclasses import dataclass

DPKG_STATUS = "/var/lib/dpkg/status"
RPM_DATABASES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
RPM_FILES = ("rpmdb.sqlite", "Packages", "Packages.db")


@dataclass(frozen=True)
class Package:
    """A package that the database knows.

    :param state: "" when it is completely installed, else dpkg's words for what it is
    """

    name: str
    version: str
    arch: str
    state: str = ""


def parse_dpkg(text: str) -> list[Package]:
    """Read /var/lib/dpkg/status; packages of which nothing is installed are left out."""
    found = []
    for stanza in text.split("\n\n"):
        fields = {}
        for line in stanza.splitlines():
            key, separator, value = line.partition(":")
            if separator and not line[0].isspace():
                fields[key] = value.strip()
        status = fields.get("Status", "").split()
        if "Package" not in fields or len(status) != 3 or status[2] in ("not-installed", "config-files"):
            continue
        _want, error, state = status
        complete = error == "ok" and state == "installed"
        problem = "" if complete else " ".join([state] + ([] if error == "ok" else [error]))
        name, version, arch = (fields.get(key, "") for key in ("Package", "Version", "Architecture"))
        found.append(Package(name, version, arch, problem))
    return found
