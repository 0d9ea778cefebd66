"""Fetch one commit with the host's git and make a source distribution of it; nothing of the commit is run here.

No work tree is made, so no hook, filter or smudge program ever is (githooks(5), gitattributes(5)). The archive gets the
two files by which pbr knows name, version and content where there is no git: those of every source distribution.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from amphora_mkimage import process, proxies, trouble
from amphora_mkimage.agent import refs
from amphora_mkimage.agent.branch import Checkout
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch import transport
from amphora_mkimage.proxies import Proxies

_ASKPASS = Path(__file__).with_name("files") / "git-askpass"
#: What git says of a repository that is somebody else's (git-config(1), safe.directory).
_DUBIOUS = re.compile(r"dubious ownership in repository at '([^']+)'")
_OF_OTHERS = "the clone belongs to another user"
_NETWORK = "check the network, the proxy variables and {}"


@dataclass(frozen=True)
class Found:
    """A checkout whose commit is known.

    :param name: full name of the ref; the commit's id, where that is what was asked for
    :param commit: full id
    """

    checkout: Checkout
    name: str
    commit: str

    @property
    def facts(self) -> dict[str, str]:
        """What the manifest says."""
        where = self.checkout
        return {"repository": where.repository.shown, "ref": where.ref, "commit": self.commit}


def find(checkout: Checkout, console: Console) -> Found:
    """Ask a repository which commit a branch, a tag or another ref is.

    :raises MkimageError: it does not answer, or has no such ref
    """
    ref, here = checkout.ref, checkout.repository.path
    if refs.COMMIT.fullmatch(ref):
        return Found(checkout, ref, ref)
    listed = _listed(checkout, console)
    name = refs.match(ref, listed)
    if name:
        return Found(checkout, name.removesuffix("^{}"), listed[name])
    if here is not None and refs.SHORT.fullmatch(ref):
        commit = _long(checkout, console)
        return Found(checkout, commit, commit)
    raise MkimageError(
        f"{checkout.project} has no branch or tag {ref} ({checkout.repository.shown})",
        _meant(checkout, refs.similar(ref, listed)),
    )


def _listed(checkout: Checkout, console: Console) -> dict[str, str]:
    """Return ids by the full names of refs: all of a clone, of a server branches and tags, or just what is wanted.

    A server of Gerrit's has a ref for each version of each change.
    """
    words = [] if checkout.repository.path is not None else ["--heads", "--tags"]
    url = ["--", checkout.repository.url]
    if refs.is_exact(checkout.ref):
        words, url = [], [*url, checkout.ref]
    output = _git(checkout, console, "ls-remote", "--quiet", *words, *url)
    lines = (re.fullmatch(r"([0-9a-f]+)\s+(HEAD|refs/\S+)", line) for line in output.splitlines())
    return {found[2]: found[1] for found in lines if found}


def _long(checkout: Checkout, console: Console) -> str:
    """Return the full id of a commit of a clone.

    :raises MkimageError: there is none, or several begin like that
    """
    try:
        place = ["-C", os.fspath(checkout.repository.path or "")]
        return _git(checkout, console, *place, "rev-parse", "--verify", f"{checkout.ref}^{{commit}}").strip()
    except MkimageError as error:
        if error.what.endswith(_OF_OTHERS):
            raise
        what = f"{checkout.project} has no branch, tag or commit {checkout.ref} ({checkout.repository.shown})"
        raise MkimageError(what, f"correct {checkout.variable}", tail=error.tail) from error


def _meant(checkout: Checkout, names: Sequence[str]) -> str:
    if names:
        return f"it has {', '.join(names)}: name it with {checkout.variable}"
    if refs.SHORT.fullmatch(checkout.ref):
        return f"give all 40 digits of a commit with {checkout.variable}: only a clone knows abbreviations"
    return f"correct {checkout.variable}"


def fetch(found: Found, directory: Path, console: Console) -> tuple[Path, str]:
    """Fetch a commit with its history, which tells the version.

    :param directory: made; a bare repository
    :returns: a tar of its files, and the version
    :raises MkimageError: the commit cannot be had
    """
    checkout, place = found.checkout, ["-C", os.fspath(directory)]
    _git(checkout, console, "init", "--quiet", "--bare", "--", os.fspath(directory))
    # Stored under a name, because tags come along only then (git-fetch(1), --no-tags).
    _git(checkout, console, *place, "fetch", "--quiet", "--", checkout.repository.url, f"+{found.name}:refs/wanted/it")
    try:
        _git(checkout, console, *place, "cat-file", "-e", f"{found.commit}^{{commit}}")
    except MkimageError as error:
        what = f"{checkout.project} {checkout.ref} changed while it was fetched ({checkout.repository.shown})"
        raise MkimageError(what, "build again", tail=error.tail) from error
    archive = directory / "files.tar"
    _git(checkout, console, *place, "archive", "--format=tar", f"--output={archive}", found.commit)
    return archive, version(_describe(found, place, console))


def version(described: str) -> str:
    """Give the version that pbr makes of ``git describe --long``, footers (Sem-Ver:) apart.

    :param described: "19.0.0-5-g0123456", or "" where no version is tagged
    """
    tag, _, rest = described.rpartition("-")[0].rpartition("-")
    try:
        last = Version(tag)
    except InvalidVersion:
        return "0.0.0"
    if rest == "0":
        return str(last)
    if last.pre is not None:
        return f"{last.base_version}{last.pre[0]}{last.pre[1] + 1}.dev{rest}"
    release = [*last.release, 0, 0, 0][:3]
    return f"{release[0]}.{release[1]}.{release[2] + 1}.dev{rest}"


def make_source(name: str, number: str, archive: Path, directory: Path) -> Path:
    """Make a source distribution of the files of a commit; gives its path.

    The same commit gives the same bytes, so it can be cached by its hash.

    :param name: of the project, "octavia-lib"
    :param number: its version
    """
    top, inside = f"{name}-{number}", f"{name.replace('-', '_')}.egg-info"
    target = directory / f"{top}.tar.gz"
    with (
        tarfile.open(archive) as files,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as made,
    ):
        newest, names = 0, []
        for member in files:
            if member.isfile():
                names.append(member.name)
            newest = max(newest, int(member.mtime))
            content = files.extractfile(member) if member.isfile() else None
            member.name = f"{top}/{member.name}"
            member.pax_headers = {}
            made.addfile(member, content)
        added = {
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
            f"{inside}/SOURCES.txt": "".join(f"{line}\n" for line in names),
        }
        for path, text in added.items():
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size, member.mtime, member.mode = len(text.encode()), newest, 0o644
            made.addfile(member, io.BytesIO(text.encode()))
    return target


def _describe(found: Found, place: list[str], console: Console) -> str:
    # Tags of other kinds, "zed-eol", have a dash.
    words = ["describe", "--tags", "--long", "--match=[0-9]*", "--exclude=*-*", found.commit]
    try:
        return _git(found.checkout, console, *place, *words).strip()
    except MkimageError:
        return ""


def _git(checkout: Checkout, console: Console, *words: str) -> str:
    where = checkout.repository.shown
    variable = f"DIB_REPOLOCATION_{'amphora_agent' if checkout.project == 'octavia' else 'octavia_lib'}"
    # Not where the user stands: the configuration of a repository there has nothing to say (git-config(1), insteadOf).
    options = ["-C", "/", "-c", "gc.auto=0", "-c", "protocol.version=2"]
    if checkout.repository.login is not None:
        # Helpers of the user's would be asked before us, and would keep what we answer (gitcredentials(7)).
        options += ["-c", "credential.helper="]
    try:
        return process.run(
            ["git", *options, *words],
            console,
            what=f"cannot fetch {checkout.project} from {where}",
            remedy=_NETWORK.format(variable),
            env=environment(checkout, os.environ),
            on_line=console.activity,
            dies_with_us=True,
        )
    except HostError as error:
        raise HostError(error.what, "install the package git") from error
    except MkimageError as error:
        owned = next(filter(None, (_DUBIOUS.search(line) for line in error.tail)), None)
        if owned is None:
            error.remedy = trouble.remedy("\n".join(error.tail), variable, other=error.remedy)
            raise
        what = f"cannot fetch {checkout.project} from {where}: {_OF_OTHERS}"
        allow = f"git config --global --add safe.directory {shlex.quote(owned[1])}"
        raise MkimageError(what, f"build as its owner, or trust it: {allow}", tail=error.tail) from error


def environment(checkout: Checkout, environ: Mapping[str, str]) -> dict[str, str]:
    """Give git's environment: the caller's network settings, none of a repository that he stands in, no questions."""
    kept = process.environment()
    local = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX")
    env = {name: value for name, value in kept.items() if name not in local}
    env = proxies.replace(env, Proxies.read(environ).for_url(checkout.repository.url))
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:http:https"}
    # A server that stalls ends it (git-config(1), http.lowSpeedLimit).
    env |= {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "60"}
    bundle = transport.ca_bundle(environ)
    if isinstance(bundle, str):
        env.setdefault("GIT_SSL_CAINFO", bundle)
    if checkout.repository.login is not None:
        user, password = checkout.repository.login
        env |= {"GIT_ASKPASS": os.fspath(_ASKPASS), "AMPHORA_GIT_HOST": checkout.repository.origin[1]}
        env |= {"AMPHORA_GIT_USER": user, "AMPHORA_GIT_PASSWORD": password}
    return env
