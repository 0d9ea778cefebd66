"""SELinux: permissive, so that what the policy does not know is logged and works; enforcing with -e.

Octavia's own elements do the same. With -e, two switches of the distribution's policy are turned that keepalived and
the load balancer's service need (Octavia's elements/amphora-selinux); the other two of its list are in
openstack-selinux, which is not in the distribution.
"""

from __future__ import annotations

import re

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import put

_CONFIGURATION = "/etc/selinux/config"
_BOOLEANS = ("cluster_use_execmem", "keepalived_connect_any")


def applies(request: Request) -> bool:
    """Red Hat's family."""
    return is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Write the mode, and with -e the booleans into the policy's store."""
    mode = "enforcing" if request.enforce_mac else "permissive"
    text = guest.read_file(_CONFIGURATION).decode()
    for name, value in (("SELINUX", mode), ("SELINUXTYPE", "targeted")):
        text = re.sub(rf"^{name}=.*\n?", "", text, flags=re.MULTILINE).rstrip("\n") + f"\n{name}={value}\n"
    put(guest, _CONFIGURATION, text.encode())
    if request.enforce_mac and guest.glob_expand("/etc/selinux/targeted/policy/policy.*"):
        for name in _BOOLEANS:
            # -N: the policy of the kernel that builds is none of ours (setsebool(8)).
            guest.command(["setsebool", "-N", "-P", name, "on"])
