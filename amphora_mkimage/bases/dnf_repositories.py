"""Which repositories dnf uses in a build: those of the guest's own files, at the user's mirror where there is one."""

from __future__ import annotations

import configparser
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from amphora_mkimage.bases.mirror import CA_VARIABLES
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.proxies import Proxies

#: Where a mirror has a repository, by distribution and the repository's id in its own files. Other repositories are
#: left out when a mirror is used.
_PATHS = {
    "fedora": {
        "fedora": "releases/$releasever/Everything/$basearch/os/",
        "updates": "updates/$releasever/Everything/$basearch/",
    },
    "centos": {
        "baseos": "$stream/BaseOS/$basearch/os/",
        "appstream": "$stream/AppStream/$basearch/os/",
    },
    "rocky": {
        "baseos": "$releasever/BaseOS/$basearch/os/",
        "appstream": "$releasever/AppStream/$basearch/os/",
    },
}


#: Options whose values are URLs, or lists of them.
_URLS = ("baseurl", "metalink", "mirrorlist", "gpgkey", "proxy")


def rewrite(
    texts: Sequence[str],
    distribution: str,
    mirror: str,
    environ: Mapping[str, str],
    address: Callable[[str], str] = str,
) -> str:
    """Give the text of one .repo file with the enabled repositories of others; it may hold passwords.

    Signature checks that a file switches off are switched on again.

    :param texts: of the guest's .repo files
    :param mirror: URL, or ""
    :param address: gives URLs of this host as the guest has to write them
    :raises BadValueError: there is no place for this distribution's repositories on a mirror
    :raises MkimageError: nothing is enabled, or a file cannot be read
    """
    if mirror and distribution not in _PATHS:
        raise BadValueError(f"BASE_OS_MIRROR: no mirror can be used for {distribution}", "leave it unset")
    found = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=("#", ";"))
    try:
        for text in texts:
            found.read_string(text)
    except configparser.Error as error:
        raise MkimageError(f"a .repo file of the base image cannot be read: {error.message}") from error
    written = configparser.ConfigParser(interpolation=None)
    for name in found.sections():
        options = dict(found[name])
        path = _PATHS.get(distribution, {}).get(name)
        if options.get("enabled", "1").lower() in ("0", "false", "no", "off") or (mirror and path is None):
            continue
        if mirror:
            for other in ("metalink", "mirrorlist"):
                options.pop(other, None)
            options |= _credentials(mirror, "baseurl", "username", "password")
            options["baseurl"] = f"{options['baseurl'].rstrip('/')}/{path}"
        options |= {"gpgcheck": "1", "sslverify": "1", "skip_if_unavailable": "0", "countme": "0"}
        options |= _proxy(options, environ)
        written[name] = options | {key: address(options[key]) for key in _URLS if key in options}
    if not written.sections():
        raise MkimageError("the base image has no enabled repository", "use the base image of the distribution")
    output = io.StringIO()
    written.write(output, space_around_delimiters=False)
    return output.getvalue()


def ca_bundle(environ: Mapping[str, str]) -> bytes | None:
    """Read the CA bundle that the user names, None when there is none."""
    bundle = next((environ[name] for name in CA_VARIABLES if environ.get(name)), "")
    return Path(bundle).read_bytes() if bundle and Path(bundle).is_file() else None


def _proxy(options: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Give the options that send a repository's requests through the proxy of the environment.

    dnf takes one proxy for all that a repository asks for, curl's variables one for each scheme: the scheme of its
    first address decides.
    """
    first = next((options[key] for key in ("metalink", "mirrorlist", "baseurl") if options.get(key)), "").split()
    proxy = Proxies.read(environ).of(first[0] if first else "")
    return _credentials(proxy, "proxy", "proxy_username", "proxy_password") if proxy else {}


def _credentials(url: str, place: str, user: str, password: str) -> dict[str, str]:
    """Give a URL and what it says about user and password as options of their own."""
    parts = urlsplit(url)
    bare = urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if parts.username is None:
        return {place: bare}
    return {place: bare, user: unquote(parts.username), password: unquote(parts.password or "")}
