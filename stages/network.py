"""No interface is configured but what cloud-init and, later, the agent configure.

cloud-init writes the management interface; the agent moves the others into its own network namespace, which an
interface that is configured here would disturb (Octavia's remove-default-ints element does the same).

On Debian it is ifupdown that cloud-init writes for, also where a published image brings netplan.io. ifupdown drops the
config drive's MTU for everything but static IPv4, hence the hook.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import install


def applies(request: Request) -> bool:
    """Debian's family."""
    return not is_redhat(request)


def run(guest: Guest, request: Request) -> None:
    """Leave the loopback only, and name what brings the rest up."""
    for pattern in ("/etc/network/interfaces.d/*", "/etc/netplan/*"):
        for path in guest.glob_expand(pattern):
            guest.rm_rf(path)
    if request.base.distribution == "debian":
        install(guest, "etc/network/interfaces")
        install(guest, "etc/network/if-pre-up.d/amphora-mtu", 0o755)
        install(guest, "etc/cloud/cloud.cfg.d/97-amphora-ifupdown.cfg")
