"""cloud-init reads the config drive, writes the network configuration and leaves bringing it up to the system.

The data sources are named, so that no other is waited for. disable_network_activation: since cloud-init 24.1 it would
start the network itself, and once more beside the system's own service. Host keys: RSA and DSA keys cost minutes of
an amphora's start without hardware randomness; Ed25519 and ECDSA cost nothing. /etc/hosts: an amphora asks no DNS, so
the name that the controller gives has to stand there.

cloud-init configures all cards of the config drive or none. A unit before it takes out those that the kernel does not
show, so that a card without a driver does not cost the management network.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import install, put

_ABSENT_CARDS = "amphora-absent-cards"
_DIRECTORY = "etc/cloud/cloud.cfg.d"


def applies(request: Request) -> bool:
    """Every image."""
    return True


def run(guest: Guest, request: Request) -> None:
    """Write the configuration; the numbers order it after the distribution's."""
    sources = ", ".join((*request.datasources, "None"))
    put(guest, f"/{_DIRECTORY}/91-dib-cloud-init-datasources.cfg", f"datasource_list: [ {sources} ]\n".encode())
    if "Ec2" in request.datasources:
        install(guest, f"{_DIRECTORY}/92-ec2-datasource.cfg")
    if "ConfigDrive" in request.datasources:
        install(guest, f"{_DIRECTORY}/93-dib-cloud-init-disable-datasource-network-activation.cfg")
        install(guest, f"usr/local/sbin/{_ABSENT_CARDS}", 0o755)
        install(guest, f"usr/lib/systemd/system/{_ABSENT_CARDS}.service")
        guest.command(["systemctl", "enable", f"{_ABSENT_CARDS}.service"])
    install(guest, f"{_DIRECTORY}/94-amphora.cfg")
    if request.root_password_hash:
        install(guest, f"{_DIRECTORY}/95-amphora-root-password.cfg")
        if request.ssh:
            install(guest, f"{_DIRECTORY}/96-amphora-ssh-password.cfg")
