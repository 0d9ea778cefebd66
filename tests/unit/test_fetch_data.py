"""The table of what is published where, held against names that were really published."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from amphora_mkimage.bases import published as data
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.fetch.publication import Signed

REAL = {
    ("ubuntu", "noble"): "ubuntu-24.04-minimal-cloudimg-{}-root.tar.xz",
    ("ubuntu", "resolute"): "ubuntu-26.04-minimal-cloudimg-{}-root.tar.xz",
    ("debian", "trixie"): "debian-13-genericcloud-{}.qcow2",
    ("debian", "bookworm"): "debian-12-genericcloud-{}.qcow2",
    ("fedora", "44"): "Fedora-Cloud-Base-Generic-44-1.7.{}.qcow2",
    ("fedora", "45"): "Fedora-Cloud-Base-Generic-45-1.2.{}.qcow2",
    ("ubuntu", "jammy"): "ubuntu-22.04-minimal-cloudimg-{}-root.tar.xz",
    ("centos", "9-stream"): "CentOS-Stream-GenericCloud-9-20230116.0.{}.qcow2",
    ("rocky", "9"): "Rocky-9-GenericCloud-Base-9.6-20250531.0.{}.qcow2",
    ("centos", "10-stream"): "CentOS-Stream-GenericCloud-10-20260818.0.{}.qcow2",
    ("rocky", "10"): "Rocky-10-GenericCloud-Base-10.2-20260525.0.{}.qcow2",
}


def test_the_data_is_complete() -> None:
    known = {(name, release) for name, series in data.PUBLISHED.items() for release in series.releases}
    assert known == set(REAL)
    assert all(series.default in series.releases for series in data.PUBLISHED.values())


@pytest.mark.parametrize(("distribution", "release"), REAL)
@pytest.mark.parametrize(("arch", "gnu"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_the_data_fits_real_names(distribution: str, release: str, arch: str, gnu: str) -> None:
    found = data.find(distribution, release, arch)
    name = REAL[distribution, release]
    assert re.fullmatch(found.image, name.format(arch if distribution in ("ubuntu", "debian") else gnu))
    for wrong in (name.format("s390x"), name.format(arch) + ".sig", "x" + name.format(gnu), name.format("other")):
        assert not re.fullmatch(found.image, wrong)
    assert found.directory.url.startswith("https://")
    assert found.directory.login is None
    assert "{" not in found.path
    assert (found.key is None) == (found.signed is Signed.NOT)
    assert (found.signature != "") == (found.signed is Signed.DETACHED)
    if found.key is not None:
        assert found.key.published_at.startswith("https://")
        assert all(re.fullmatch(r"[0-9A-F]{40}", fingerprint) for fingerprint in found.key.fingerprints)
        assert all(url.startswith("https://") for url in found.key.urls)


@pytest.mark.parametrize(
    ("distribution", "release", "arch", "told"),
    [
        ("ubuntu", "focal", "amd64", "known: jammy, noble"),
        ("ubuntu", "noble", "i386", "known: amd64"),
        ("plan9", "4", "amd64", ""),
    ],
)
def test_what_the_data_does_not_have(distribution: str, release: str, arch: str, told: str) -> None:
    with pytest.raises(BadValueError) as raised:
        data.find(distribution, release, arch)
    assert told in raised.value.remedy


def test_only_downloads_need_requests() -> None:
    code = """
import sys
sys.modules["requests"] = None  # as if it were not installed
import amphora_mkimage.bases.published, amphora_mkimage.build, amphora_mkimage.cli
import amphora_mkimage.fetch.images, amphora_mkimage.fetch.signature
try:
    import amphora_mkimage.fetch.published
except Exception as error:
    print(type(error).__name__, error, error.remedy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HostError the Python package requests is not installed install the package")
