"""Keep the packages that dnf fetched, for the next build of the release that has to install anew.

They are taken from, and put back to, where dnf looks for them: it compares each with the checksum of the repository's
metadata and fetches it again where that differs, and checks signatures when it installs (dnf.conf(5), keepcache). What
is kept is what was installed, so that the list does not grow with every update of a repository.
"""

from __future__ import annotations

import hashlib
import json
import re

from amphora_mkimage.bases import dnf, rpm
from amphora_mkimage.bases.base import Wish
from amphora_mkimage.fetch.store import Store, key_of
from amphora_mkimage.guest.protocol import Guest

#: Of a repository's directory and of a package's file: what rpm allows in names and versions, and nothing else.
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+~^:-]*")


def restore(guest: Guest, store: Store, wish: Wish) -> None:
    """Put the packages that were kept of a release where dnf will look for them; checked against their hashes.

    :param guest: where the repositories' metadata was fetched
    """
    here = {path.rpartition("/")[2] for path in guest.glob_expand(f"{dnf.CACHE}/*")}
    for directory, file, sha256 in json.loads(store.rpm_list(_key(wish)) or b"[]"):
        if directory not in here:  # another mirror
            continue
        content = store.rpm(sha256)
        if content is not None:
            guest.mkdir_p(f"{dnf.CACHE}/{directory}/packages")
            guest.write(f"{dnf.CACHE}/{directory}/packages/{file}", content)


def keep(guest: Guest, store: Store, wish: Wish) -> None:
    """Keep what was fetched and installed.

    :param guest: with all installed, and dnf's directory still there
    """
    installed = {
        f"{package.name}-{package.version.rpartition(':')[2]}.{package.arch}.rpm" for package in rpm.installed(guest)
    }
    kept = []
    for path in guest.glob_expand(f"{dnf.CACHE}/*/packages/*.rpm"):
        *_, directory, _, file = path.split("/")
        if file in installed and _NAME.fullmatch(directory) and _NAME.fullmatch(file):
            content = guest.read_file(path)
            sha256 = hashlib.sha256(content).hexdigest()
            store.put_rpm(sha256, content)
            kept.append((directory, file, sha256))
    store.put_rpm_list(_key(wish), json.dumps(kept).encode())


def _key(wish: Wish) -> str:
    return key_of("packages", wish.base.distribution, wish.release)
