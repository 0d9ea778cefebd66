"""Which repositories dnf is given, what its complaints mean, and which kernel is the newest."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from pathlib import Path

import pytest

from amphora_mkimage.bases import dnf, dnf_repositories
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.guest import appliance_network
from amphora_mkimage.guest.appliance_guest import _failure
from amphora_mkimage.guest.namespace import NamespaceGuest

FEDORA = """\
[fedora]
name=Fedora $releasever - $basearch
#baseurl=http://download.example/pub/fedora/linux/releases/$releasever/Everything/$basearch/os/
metalink=https://mirrors.example/metalink?repo=fedora-$releasever&arch=$basearch
enabled=1
gpgcheck=0
skip_if_unavailable=True
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-$releasever-$basearch

[fedora-debuginfo]
name=Fedora $releasever - $basearch - Debug
metalink=https://mirrors.example/metalink?repo=fedora-debug-$releasever&arch=$basearch
enabled=0
"""
CISCO = """\
[fedora-cisco-openh264]
name=Fedora $releasever openh264 (From Cisco) - $basearch
metalink=https://mirrors.example/metalink?repo=fedora-cisco-openh264-$releasever&arch=$basearch
enabled=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-$releasever-$basearch
"""
CENTOS = "[baseos]\nname=b\nmetalink=https://m.example/m?repo=centos-baseos-$stream\nenabled=1\ngpgkey=file:///k\n"


def rewritten(
    *texts: str,
    distribution: str = "fedora",
    mirror: str = "",
    environ: dict[str, str] | None = None,
    address: Callable[[str], str] = str,
) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(dnf_repositories.rewrite(texts, distribution, mirror, environ or {}, address))
    return {name: dict(parser[name]) for name in parser.sections()}


def test_enabled_repositories_are_kept_and_checked() -> None:
    found = rewritten(FEDORA, CISCO)
    assert list(found) == ["fedora", "fedora-cisco-openh264"]
    assert found["fedora"]["metalink"] == "https://mirrors.example/metalink?repo=fedora-$releasever&arch=$basearch"
    for options in found.values():
        assert (options["gpgcheck"], options["sslverify"], options["skip_if_unavailable"]) == ("1", "1", "0")
        assert options["gpgkey"].startswith("file:///etc/pki/rpm-gpg/")


@pytest.mark.parametrize(
    ("text", "distribution", "name", "url"),
    [
        (FEDORA, "fedora", "fedora", "http://m.example/f/releases/$releasever/Everything/$basearch/os/"),
        (CENTOS, "centos", "baseos", "http://m.example/f/$stream/BaseOS/$basearch/os/"),
        (CENTOS, "rocky", "baseos", "http://m.example/f/$releasever/BaseOS/$basearch/os/"),
    ],
)
def test_a_mirror_replaces_the_addresses(text: str, distribution: str, name: str, url: str) -> None:
    found = rewritten(text, CISCO, distribution=distribution, mirror="http://m.example/f/")
    assert list(found) == [name]  # a mirror of Fedora has nothing of Cisco's
    assert found[name]["baseurl"] == url
    assert not {"metalink", "mirrorlist"} & set(found[name])
    assert found[name]["gpgcheck"] == "1"


def test_credentials_leave_the_mirrors_url() -> None:
    options = rewritten(FEDORA, mirror="https://me:p%40ss@m.example:8443/f")["fedora"]
    assert options["baseurl"].startswith("https://m.example:8443/f/releases/")
    assert (options["username"], options["password"]) == ("me", "p@ss")


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p.example:3128"}, None),
        ({"https_proxy": "http://p.example:3128"}, "http://p.example:3128"),
        ({"HTTPS_PROXY": "p.example:3128"}, "http://p.example:3128"),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "mirrors.example"}, None),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "other.example"}, "http://p.example:3128"),
    ],
)
def test_the_proxy_of_the_environment(environ: dict[str, str], proxy: str | None) -> None:
    assert rewritten(FEDORA, environ=environ)["fedora"].get("proxy") == proxy


def test_the_proxys_password_is_an_option_of_its_own() -> None:
    options = rewritten(FEDORA, environ={"https_proxy": "http://u:s%3Acret@p.example:3128"})["fedora"]
    assert options["proxy"] == "http://p.example:3128"
    assert (options["proxy_username"], options["proxy_password"]) == ("u", "s:cret")


def test_this_hosts_loopback_is_elsewhere_for_an_appliance() -> None:
    """Also the address of a proxy; but what needs none is decided by the address that the user knows."""
    environ = {
        "http_proxy": "http://u:p@localhost:3128",
        "https_proxy": "http://localhost:3128",
        "no_proxy": "127.0.0.1",
    }
    mirror = "http://me:secret@127.0.0.1:8080/f"
    found = rewritten(FEDORA, mirror=mirror, environ=environ, address=appliance_network.address)["fedora"]
    assert found["baseurl"].startswith("http://169.254.2.2:8080/f/releases/")
    assert found["username"] == "me"
    assert "proxy" not in found
    found = rewritten(FEDORA, environ=environ, address=appliance_network.address)["fedora"]
    assert found["proxy"] == "http://169.254.2.2:3128"
    assert found["metalink"].startswith("https://mirrors.example/")
    assert found["gpgkey"].startswith("file:///etc/pki/")


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(BadValueError, match="rhel"):
        rewritten(FEDORA, distribution="rhel", mirror="http://m.example")
    with pytest.raises(MkimageError, match="no enabled repository"):
        rewritten(FEDORA.replace("enabled=1", "enabled=0"))
    with pytest.raises(MkimageError, match="cannot be read"):
        rewritten("name=without a section\n")


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("Package haproxy-3.0-1.fc44.x86_64.rpm is not signed\nError: GPG check FAILED", "key"),
        ("Public key for haproxy-3.0-1.fc44.x86_64.rpm is not installed", "key"),
        ("No match for argument: kernel-x\nError: Unable to find a match: kernel-x", "-k"),
        ("[MIRROR] x.rpm: Downloading successful, but checksum doesn't match.", "damaged"),
        ("Error: Transaction test error:\n  installing package x needs 10MB more space on the / filesystem", "space"),
        ("Error: Failed to download metadata for repo 'fedora': Cannot download repomd.xml", "proxy"),
    ],
)
def test_remedies(output: str, word: str) -> None:
    assert word in dnf.remedy(output)


class FullGuest(NamespaceGuest):
    """A guest of which every command fails as it does in an appliance, with given last words."""

    last = ""

    def command(self, arguments: list[str]) -> str:
        raise _failure(f"in the image: {arguments[0]}", [self.last])


@pytest.mark.parametrize(
    ("last", "kind", "words"),
    [
        ("  installing package kernel-core-6.11 needs 10MB more space on the / filesystem", BadValueError, "-s: "),
        ("At least 10MB more space needed on the / filesystem.", BadValueError, "-s: "),
        ("OSError: [Errno 28] No space left on device", BadValueError, "-s: "),
        ("Error: Cannot download repomd.xml", MkimageError, "cannot read the package repositories: Cannot download"),
    ],
)
def test_a_disk_that_is_too_small(last: str, kind: type[MkimageError], words: str, tmp_path: Path) -> None:
    guest = FullGuest(tmp_path, Console())
    guest.last = last
    with pytest.raises(MkimageError) as caught:
        dnf.metadata(guest)
    guest.close()
    assert type(caught.value) is kind
    assert caught.value.what.startswith(words)


def test_units_of_removed_packages_are_not_enabled(tmp_path: Path) -> None:
    unit, wants = tmp_path / "usr/lib/systemd/system/a.service", tmp_path / "etc/systemd/system/multi-user.target.wants"
    for directory in (unit.parent, wants):
        directory.mkdir(parents=True)
    unit.touch()
    for name in ("a.service", "sshd.service"):
        (wants / name).symlink_to(f"/usr/lib/systemd/system/{name}")  # of the guest, not of this host
    (wants / "file").touch()
    guest = NamespaceGuest(tmp_path, Console())
    dnf.disable_what_is_gone(guest)
    guest.close()
    assert sorted(path.name for path in wants.iterdir()) == ["a.service", "file"]


def test_the_newest_kernel() -> None:
    versions = ["6.9.10-200.fc44.x86_64", "6.11.4-301.fc44.x86_64", "6.11.4-300.fc44.x86_64", "6.11.4-300.fc43.x86_64"]
    assert sorted(versions, key=dnf._version_key)[-2:] == ["6.11.4-300.fc44.x86_64", "6.11.4-301.fc44.x86_64"]
