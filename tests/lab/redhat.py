"""What the stand-ins of Fedora, CentOS Stream and Rocky differ in: the real names, numbers and places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Distribution:
    """One distribution.

    :param version: VERSION_ID of os-release
    :param releasever: dnf's $releasever
    :param dist: how releases of its packages end
    :param vendor: its folder on the ESP
    :param filesystem: of the cloud image's root
    :param boot_partition: whether /boot is a filesystem of its own there
    :param key_name: file of its key in /etc/pki/rpm-gpg
    :param image: path of the cloud image on its site
    :param checksum: path of the file with its checksum
    :param signed: how that file is signed: "clear", "detached" or not at all
    :param repositories: path below the mirror, by repository id
    :param variables: of dnf, in /etc/dnf/vars
    """

    id: str
    name: str
    version: str
    releasever: str
    pretty_name: str
    dist: str
    vendor: str
    filesystem: str
    boot_partition: bool
    key_name: str
    image: str
    checksum: str
    repo_files: tuple[str, ...]
    repositories: Mapping[str, str]
    signed: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


_FEDORA_IMAGES = "fedora/linux/releases/44/Cloud/x86_64/images"
_CENTOS_IMAGES = "centos/10-stream/x86_64/images"
_ROCKY_IMAGES = "rocky/10/images/x86_64"
_CENTOS_IMAGE = "CentOS-Stream-GenericCloud-10-20261116.0.x86_64.qcow2"
_ROCKY_IMAGE = "Rocky-10-GenericCloud-Base-10.2-20260525.0.x86_64.qcow2"

FEDORA = Distribution(
    id="fedora",
    name="Fedora Linux",
    version="44",
    releasever="44",
    pretty_name="Fedora Linux 44 (Cloud Edition)",
    dist=".fc44",
    vendor="fedora",
    filesystem="btrfs",
    boot_partition=True,
    key_name="RPM-GPG-KEY-fedora-44-x86_64",
    image=f"{_FEDORA_IMAGES}/Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
    checksum=f"{_FEDORA_IMAGES}/Fedora-Cloud-44-1.7-x86_64-CHECKSUM",
    signed="clear",
    repo_files=("fedora.repo", "fedora-updates.repo"),
    repositories={
        "fedora": "fedora/linux/releases/44/Everything/x86_64/os",
        "updates": "fedora/linux/updates/44/Everything/x86_64",
    },
)
CENTOS = Distribution(
    id="centos",
    name="CentOS Stream",
    version="10",
    releasever="10",
    pretty_name="CentOS Stream 10 (Coughlan)",
    dist=".el10",
    vendor="centos",
    filesystem="xfs",
    boot_partition=False,
    key_name="RPM-GPG-KEY-centosofficial-SHA256",
    image=f"{_CENTOS_IMAGES}/{_CENTOS_IMAGE}",
    checksum=f"{_CENTOS_IMAGES}/CHECKSUM",
    repo_files=("centos.repo",),
    repositories={
        "baseos": "centos-stream/10-stream/BaseOS/x86_64/os",
        "appstream": "centos-stream/10-stream/AppStream/x86_64/os",
    },
    variables={"stream": "10-stream"},
)
ROCKY = Distribution(
    id="rocky",
    name="Rocky Linux",
    version="10.2",
    releasever="10",
    pretty_name="Rocky Linux 10.2 (Red Quartz)",
    dist=".el10_2",
    vendor="rocky",
    filesystem="xfs",
    boot_partition=True,
    key_name="RPM-GPG-KEY-Rocky-10",
    image=f"{_ROCKY_IMAGES}/{_ROCKY_IMAGE}",
    checksum=f"{_ROCKY_IMAGES}/CHECKSUM",
    signed="detached",
    repo_files=("rocky.repo",),
    repositories={"baseos": "rocky/10/BaseOS/x86_64/os", "appstream": "rocky/10/AppStream/x86_64/os"},
    variables={"contentdir": "pub/rocky", "rltype": "", "sigcontentdir": "pub/sig"},
)
DISTRIBUTIONS = {distribution.id: distribution for distribution in (FEDORA, CENTOS, ROCKY)}
