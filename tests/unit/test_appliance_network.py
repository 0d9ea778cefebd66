"""What an appliance is told of this host's network."""

from __future__ import annotations

import pytest

from amphora_mkimage.guest import appliance_network

HOSTS = """\
127.0.0.1\tlocalhost build.example build # this machine
::1 localhost ip6-localhost ip6-loopback
127.0.1.1 mirror.example
192.0.2.7 other.example  other
fe80::1%eth0 router.example
ff02::1 ip6-allnodes
# 192.0.2.8 gone.example
nonsense here
"""


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://127.0.0.1:8080/fedora/$releasever/", "http://169.254.2.2:8080/fedora/$releasever/"),
        ("http://127.3.2.1", "http://169.254.2.2"),
        ("http://LocalHost/x", "http://169.254.2.2/x"),
        ("http://[::1]:3128", "http://169.254.2.2:3128"),
        ("http://u:p@localhost:1/", "http://u:p@169.254.2.2:1/"),
        ("http://localhost/a http://m.example/b", "http://169.254.2.2/a http://m.example/b"),
        ("https://m.example/metalink?from=127.0.0.1", "https://m.example/metalink?from=127.0.0.1"),
        ("http://localhost.example/", "http://localhost.example/"),
        ("http://127.0.0.1.example/", "http://127.0.0.1.example/"),
        ("http://10.127.0.1/", "http://10.127.0.1/"),
        ("file:///etc/pki/rpm-gpg/localhost", "file:///etc/pki/rpm-gpg/localhost"),
    ],
)
def test_addresses_of_this_host(url: str, there: str) -> None:
    assert appliance_network.address(url) == there


def test_names_that_only_this_host_knows() -> None:
    assert appliance_network.hosts(HOSTS).decode().splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost",
        "169.254.2.2 build.example build",
        "169.254.2.2 mirror.example",
        "192.0.2.7 other.example other",
        "fe80::1%eth0 router.example",
        "ff02::1 ip6-allnodes",
    ]


def test_short_names_are_looked_up_as_here_by_the_appliances_nameserver() -> None:
    text = "# none\nnameserver 127.0.0.53\nsearch a.example b.example\noptions ndots:2 edns0\n"
    assert appliance_network.domains(text).decode().split("\n") == [
        *("", "search a.example b.example", ""),
        *("options ndots:2 edns0", ""),
    ]


def test_this_host_has_both() -> None:
    assert appliance_network.of_host().keys() == set(appliance_network.FILES)
