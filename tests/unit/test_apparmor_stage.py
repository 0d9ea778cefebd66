"""Which profiles of AppArmor stay: heads as the packages of Debian 13 and Ubuntu 24.04 have them."""

from __future__ import annotations

from pathlib import Path

import make_request
import pytest

from amphora_mkimage.console import Console
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.stages import apparmor

BODY = """
  include <abstractions/base>
  /{,usr/}bin/{bash,dash} ix,
  @{PROC}/@{pid}/stat r,
  profile inner flags=(complain) {
    /usr/bin/true ix,
  }
}
"""
CASES = {
    "profile absent /usr/lib/xorg/Xorg flags=(complain,attach_disconnected, complain) {": False,
    'profile "MongoDB Compass" "/usr/lib/mongodb-compass/MongoDB Compass" flags=(unconfined) {': False,
    "profile sandbox /usr/libexec/@{multiarch}/bazel/linux-sandbox flags=(unconfined) {": False,
    "@{chromium} = {,ungoogled-}chromium{,-browser}\nprofile c /usr/lib/@{chromium}/@{chromium} {": False,
    "/{,usr/}sbin/absent flags=(attach_disconnected) {": False,
    "profile tcpdump /usr/bin/tcpdump {": True,
    '"/usr/bin/tcpdump" {': True,
    "/{,usr/}{,s}bin/tcpdump flags=(complain) {": True,
    "profile t /usr/lib/@{multiarch}/tool {": True,
    "@{name} = {,x}tcpdump\nprofile t /usr/bin/@{name} {": True,
    # In doubt it stays: what others enter by its name, and what a tunable names that we do not know.
    "profile lsb_release {": True,
    "profile unprivileged_userns flags=(complain) {": True,
    "profile t @{sbin}/absent {": True,
}


@pytest.mark.parametrize(("head", "stays"), CASES.items())
def test_profiles_of_programs_that_are_not_there_are_off(tmp_path: Path, head: str, stays: bool) -> None:
    guest = NamespaceGuest(tmp_path, Console())
    for path in ("/usr/bin/tcpdump", "/usr/lib/x86_64-linux-gnu/tool", "/usr/bin/bash", "/usr/bin/true"):
        guest.mkdir_p(str(Path(path).parent))
        guest.write(path, b"")
    guest.mkdir_p("/etc/apparmor.d")
    guest.write("/etc/apparmor.d/it", (head + BODY).encode())
    apparmor.run(guest, make_request.make())
    assert guest.exists("/etc/apparmor.d/disable/it") is not stays
