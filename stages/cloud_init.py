"""cloud-init reads the config drive, writes the network configuration and leaves bringing it up to the system.

The data sources are named, so that no other is waited for. disable_network_activation: since cloud-init 24.1 it would
start the network itself, and once more beside the system's own service. Host keys: RSA and DSA keys cost minutes of
an amphora's start without hardware randomness; Ed25519 and ECDSA cost nothing.
"""

from __future__ import annotations

from amphora_mkimage.guest.protocol import Guest
from amphora_mkimage.request import Request
from amphora_mkimage.stages.install import install, put

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
    install(guest, f"{_DIRECTORY}/94-amphora.cfg")
    if request.root_password_hash:
        install(guest, f"{_DIRECTORY}/95-amphora-root-password.cfg")
        if request.ssh:
            install(guest, f"{_DIRECTORY}/96-amphora-ssh-password.cfg")
