"""Where each distribution publishes its cloud root filesystem, and which keys sign it.

The facts are those of autumn 2026. A pinned fingerprint stands beside the place where its owner publishes it; compare
them there before you change one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.publication import Publication, Signed, SigningKey

_GNU = {"amd64": "x86_64", "arm64": "aarch64"}
_DEBIAN = {"amd64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True)
class Series:
    """The publications of one distribution.

    :param architectures: how it spells ours
    :param releases: by release; ``{arch}`` stands for the architecture
    :param default: the release to take when none is asked for
    """

    architectures: Mapping[str, str]
    releases: Mapping[str, Publication]
    default: str


def find(distribution: str, release: str, arch: str) -> Publication:
    """Give the publication for a release and an architecture.

    :raises BadValueError: there is none
    """
    series = PUBLISHED.get(distribution)
    if series is None:
        raise BadValueError(f"{distribution} publishes no root filesystem that is known here")
    publication, spelling = series.releases.get(release), series.architectures.get(arch)
    if publication is None:
        raise BadValueError(f"{distribution} {release} is not known here", f"known: {', '.join(series.releases)}")
    if spelling is None:
        raise BadValueError(f"{distribution} is not published for {arch}", f"known: {', '.join(series.architectures)}")
    return replace(
        publication,
        path=publication.path.replace("{arch}", spelling),
        image=publication.image.replace("{arch}", spelling),
        sums=publication.sums.replace("{arch}", spelling),
    )


# -- Ubuntu ------------------------------------------------------------------------------------------------------------

#: "UEC Image Automatic Signing Key" and "Ubuntu Cloud Image Builder", the two keys of the package
#: ubuntu-cloudimage-keyring. The first is also stated in the documentation of the images.
_UBUNTU_KEYS = ("D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81", "4A3CE3CD565D7EB5C810E2B97FF3F408476CF100")
_UBUNTU_KEY = SigningKey(
    fingerprints=_UBUNTU_KEYS,
    published_at="https://ubuntu.com/docs/public-images/public-images-how-to/verify-image-checksum/",
    keyrings=("/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",),
    urls=tuple(f"https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{key}" for key in _UBUNTU_KEYS),
)


def _ubuntu(codename: str, version: str) -> Publication:
    # "Minimal" is made for machines: no manual pages, editors or translations. Its root.tar.xz is 140 MB.
    return Publication(
        title=f"Ubuntu {codename}",
        root="https://cloud-images.ubuntu.com",
        path=f"minimal/releases/{codename}/release",
        image=rf"ubuntu-{version}-minimal-cloudimg-{{arch}}-root\.tar\.xz".replace(
            version, version.replace(".", r"\.")
        ),
        kind="tar",
        sums="SHA256SUMS",
        signed=Signed.DETACHED,
        signature="SHA256SUMS.gpg",
        key=_UBUNTU_KEY,
    )


# -- Debian ------------------------------------------------------------------------------------------------------------


def _debian(codename: str, version: str) -> Publication:
    # Not signed: there is no SHA512SUMS.sign, unlike for the installation images (https://www.debian.org/CD/verify).
    # The tar.xz beside it holds no root filesystem, but a raw disk.
    return Publication(
        title=f"Debian {codename}",
        root="https://cloud.debian.org/images/cloud",
        path=f"{codename}/latest",
        image=rf"debian-{version}-genericcloud-{{arch}}\.qcow2",
        kind="qcow2",
        sums="SHA512SUMS",
        algorithm="sha512",
    )


# -- Fedora ------------------------------------------------------------------------------------------------------------

#: One key a release: "Fedora (44) <fedora-44-primary@fedoraproject.org>" and so on.
_FEDORA_KEYS = {
    "44": "36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6",
    "45": "4F50A6114CD5C6976A7F1179655A4B02F577861E",
}


def _fedora(release: str) -> Publication:
    # dl.fedoraproject.org, because download.fedoraproject.org sends each request to another mirror, which may be on
    # plain http. The checksums are clearsigned, and have the number of the compose in their name.
    key = f"RPM-GPG-KEY-fedora-{release}-primary"
    return Publication(
        title=f"Fedora {release}",
        root="https://dl.fedoraproject.org/pub/fedora/linux",
        path=f"releases/{release}/Cloud/{{arch}}/images",
        image=rf"Fedora-Cloud-Base-Generic-{release}-[0-9]+\.[0-9]+\.{{arch}}\.qcow2",
        kind="qcow2",
        sums=rf"Fedora-Cloud-{release}-[0-9]+\.[0-9]+-{{arch}}-CHECKSUM",
        listed=True,
        signed=Signed.CLEAR,
        key=SigningKey(
            fingerprints=(_FEDORA_KEYS[release],),
            published_at="https://fedoraproject.org/security/",
            keyrings=(f"/etc/pki/rpm-gpg/{key}", f"/usr/share/distribution-gpg-keys/fedora/{key}"),
            urls=("https://fedoraproject.org/fedora.gpg",),
        ),
    )


# -- CentOS Stream and Rocky Linux -------------------------------------------------------------------------------------


def _centos(release: str) -> Publication:
    # Not signed. The file of checksums names the composes that are there, so that name and checksum belong together,
    # which they may not with the moving name "latest". CentOS has published empty files of checksums.
    return Publication(
        title=f"CentOS Stream {release}",
        root="https://cloud.centos.org/centos",
        path=f"{release}-stream/{{arch}}/images",
        image=rf"CentOS-Stream-GenericCloud-{release}-[0-9]{{8}}\.[0-9]+\.{{arch}}\.qcow2",
        kind="qcow2",
        sums="CHECKSUM",
    )


#: "Rocky Enterprise Software Foundation - Release key 2022 <releng@rockylinux.org>", and
#: "Release Engineering (Rocky Linux 10) <releng@rockylinux.org>".
_ROCKY_KEYS = {"9": "21CB256AE16FC54C6E652949702D426D350D275D", "10": "FC226859C0860BF0DDB95B085B106C736FEDFC85"}


def _rocky(release: str) -> Publication:
    key = f"RPM-GPG-KEY-Rocky-{release}"
    return Publication(
        title=f"Rocky Linux {release}",
        root="https://dl.rockylinux.org/pub/rocky",
        path=f"{release}/images/{{arch}}",
        image=rf"Rocky-{release}-GenericCloud-Base-{release}\.[0-9]+-[0-9]{{8}}\.[0-9]+\.{{arch}}\.qcow2",
        kind="qcow2",
        sums="CHECKSUM",
        signed=Signed.DETACHED,
        signature="CHECKSUM.asc",
        key=SigningKey(
            fingerprints=(_ROCKY_KEYS[release],),
            published_at="https://rockylinux.org/resources/gpg-key-info",
            keyrings=(f"/etc/pki/rpm-gpg/{key}", f"/usr/share/distribution-gpg-keys/rocky/{key}"),
            urls=(f"https://dl.rockylinux.org/pub/rocky/{key}",),
        ),
    )


_UBUNTU_VERSIONS = {"jammy": "22.04", "noble": "24.04", "resolute": "26.04"}
PUBLISHED: dict[str, Series] = {
    "ubuntu": Series(_DEBIAN, {name: _ubuntu(name, version) for name, version in _UBUNTU_VERSIONS.items()}, "noble"),
    "debian": Series(_DEBIAN, {"trixie": _debian("trixie", "13"), "bookworm": _debian("bookworm", "12")}, "trixie"),
    "fedora": Series(_GNU, {release: _fedora(release) for release in _FEDORA_KEYS}, "44"),
    "centos": Series(_GNU, {"9-stream": _centos("9"), "10-stream": _centos("10")}, "10-stream"),
    "rocky": Series(_GNU, {release: _rocky(release) for release in _ROCKY_KEYS}, "10"),
}
