"""A base image must be what was asked for."""

from __future__ import annotations

import pytest

from amphora_mkimage.bases import BASES
from amphora_mkimage.bases.unpacked import check_identity
from amphora_mkimage.errors import BadValueError

UBUNTU = 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n'
FEDORA = 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=44\nVERSION_CODENAME=""\nPRETTY_NAME="Fedora Linux 44"\n'
CENTOS = 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="10"\nPRETTY_NAME="CentOS Stream 10 (Coughlan)"\n'
ROCKY = 'ID="rocky"\nVERSION_ID="10.2"\nPRETTY_NAME="Rocky Linux 10.2 (Red Quartz)"\n'
RHEL = 'ID="rhel"\nVERSION_ID="10.1"\nPRETTY_NAME="Red Hat Enterprise Linux 10.1 (Coughlan)"\n'


@pytest.mark.parametrize(
    ("text", "base", "release"),
    [
        (UBUNTU, "ubuntu", "noble"),
        (FEDORA, "fedora", "44"),
        (CENTOS, "centos", "10-stream"),
        (ROCKY, "rocky", "10"),
        (RHEL, "rhel", "10"),
    ],
)
def test_what_was_asked_for(text: str, base: str, release: str) -> None:
    check_identity(text, BASES[base], release)


@pytest.mark.parametrize(
    ("text", "base", "release", "flag"),
    [
        (UBUNTU, "debian", "trixie", "-i"),
        (UBUNTU, "ubuntu", "resolute", "-d"),
        (FEDORA, "fedora", "45", "-d"),
        (ROCKY, "centos", "10-stream", "-i"),
        (RHEL.replace("10.1", "9.7"), "rhel", "10", "-d"),
        ("", "ubuntu", "noble", "-i"),
        ('ID=\x1b[31m\nPRETTY_NAME="\x1b]0;evil\x07"\n', "ubuntu", "noble", "-i"),
    ],
)
def test_what_was_not(text: str, base: str, release: str, flag: str) -> None:
    with pytest.raises(BadValueError) as caught:
        check_identity(text, BASES[base], release)
    assert caught.value.what.startswith(flag)
    assert flag in caught.value.remedy
    assert "\x1b" not in caught.value.what
