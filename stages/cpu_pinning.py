"""CPU 0 for the system, all others for HAProxy (-m).

The controller reads the tuned profile's name through the agent: only where it has the word "amphora" in it does it
spread HAProxy's threads over the isolated CPUs (octavia/common/jinja/haproxy/combined_listeners/jinja_cfg.py). So the
active profile is the contract.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.family import is_redhat
from amphora_mkimage.stages.install import FILES, install, put

_PROFILE = {"tuned.conf": 0o644, "script.sh": 0o755}


def applies(request: Request) -> bool:
    """Only with -m."""
    return request.cpu_pinning


def run(guest: Guest, request: Request) -> None:
    """Isolate the CPUs at boot, and let tuned move interrupts and kernel threads off them."""
    if not is_redhat(request):  # there the stage "grub2" says it
        install(guest, "etc/default/grub.d/60-amphora-cpu-pinning.cfg")
    for name, mode in (("active_profile", 0o644), ("profile_mode", 0o644)):
        install(guest, f"etc/tuned/{name}", mode)
    # Since version 2.23 tuned looks for an administrator's profiles in a directory below, and nowhere else.
    place = "/etc/tuned/profiles" if guest.is_dir("/etc/tuned/profiles") else "/etc/tuned"
    for name, mode in _PROFILE.items():
        put(guest, f"{place}/amphora/{name}", (FILES / f"etc/tuned/amphora/{name}").read_bytes(), mode)
    guest.command(["systemctl", "enable", "tuned.service"])
