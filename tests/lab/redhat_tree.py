"""A distribution's system in a directory: real rpm installs the lab's packages."""

from __future__ import annotations

import os
from pathlib import Path

from redhat import Distribution
from rpm_repository import Repository

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.guest.namespace import NamespaceGuest

DATABASE = "/usr/lib/sysimage/rpm"
#: What Fedora's cloud images boot with.
KERNEL_OPTIONS = "no_timer_check net.ifnames=0 console=tty1 console=ttyS0,115200n8"


def install(repository: Repository, root: Path, console: Console, kernel_options: str = KERNEL_OPTIONS) -> None:
    """Install the cloud image's packages into a new directory. To be called in a namespace of one's own.

    :param kernel_options: the command line that the kernel's BLS entry gets
    """
    for name in ("proc", "sys", "dev", "run", "tmp", "etc/kernel", "boot", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/kernel/cmdline").write_text(f"{kernel_options}\n", encoding="utf-8")
    (root / "var/lib/rpm").symlink_to(f"../..{DATABASE}")
    guest = NamespaceGuest(root, console)
    # The host's macros are Debian's, whose database is elsewhere.
    rpm = ["rpm", "--root", os.fspath(root), "--define", f"_dbpath {DATABASE}"]
    with guest.mounted():
        process.run([*rpm, "--initdb"], console, what="cannot make the RPM database")
        process.run([*rpm, "--import", os.fspath(repository.key.public)], console, what="cannot import the key")
        first = [path for path in repository.base if path.name.startswith(("setup-", "filesystem-"))]
        # In two steps, because rpm breaks the loops among the others as it likes, and files belong to accounts.
        for paths in (first, [path for path in repository.base if path not in first]):
            files = [os.fspath(path) for path in paths]
            process.run([*rpm, "--install", "--excludedocs", *files], console, what="cannot install the packages")
    guest.close()
    _configure(root, repository.distribution)


def _configure(root: Path, distribution: Distribution) -> None:
    """Do what an image builder does at the end."""
    (root / "etc/hostname").write_text("localhost.localdomain\n", encoding="utf-8")
    (root / "etc/hosts").write_text("127.0.0.1 localhost localhost.localdomain\n::1 localhost\n", encoding="utf-8")
    (root / "etc/machine-id").write_text("uninitialized\n" if distribution.id == "fedora" else "", encoding="utf-8")
    (root / "etc/resolv.conf").write_text("", encoding="utf-8")
    (root / "etc/sysconfig").mkdir(exist_ok=True)
    (root / "etc/sysconfig/network").write_text("NETWORKING=yes\n", encoding="utf-8")
    for path in ("var/lib/systemd/random-seed", "etc/kernel/cmdline"):
        (root / path).unlink(missing_ok=True)
