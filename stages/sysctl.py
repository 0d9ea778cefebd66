"""Kernel settings for a load balancer, one file a key.

Files under /etc/sysctl.d and not the kernel command line, because the agent applies them again inside its network
namespace with ``sysctl --system``. One file a key, so that an operator replaces one by writing one. No quotes around
values: the kernel would take them as part of the value.
"""

from __future__ import annotations

import tomllib

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import FILES, install, put


def applies(request: Request) -> bool:
    """Every image."""
    return True


def settings() -> dict[str, str]:
    """Give the keys and values."""
    table = tomllib.loads((FILES / "sysctl.toml").read_text(encoding="utf-8"))
    return {key: str(value) for key, value in table.items()}


def run(guest: Guest, request: Request) -> None:
    """Write the files."""
    for key, value in settings().items():
        put(guest, f"/etc/sysctl.d/{key}.conf", f"{key} = {value}\n".encode())
    install(guest, "etc/sysctl.d/99-cloudimg-ipv6.conf")
