"""Obtain a published root filesystem: read the checksums, check who signed them, fetch the file, compare.

Needs requests: import this module where something is obtained, not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urldefrag

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.fetch import signature
from amphora_mkimage.fetch.checksums import Checksums, Digest, digest_of, numbers, parse_digest
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.images import Images, Partial
from amphora_mkimage.fetch.publication import GIB, Location, Publication, Signed
from amphora_mkimage.fetch.transport import NotThereError, Policy

#: Bound of checksums, signatures, keys and listings.
_SMALL_BYTES = 4 << 20
_INSECURE = "use an https mirror that has the signatures, or --insecure to go without"


@dataclass(frozen=True)
class Obtained:
    """A file that was verified.

    :param path: where it is; in the cache, or the user's own file
    :param url: where it was published, without credentials
    :param signed_by: fingerprint of the primary key that signed its checksum, None when only TLS or the host vouches
    :param insecure: a check that belongs to it was left out, because the user allowed that
    :param cached: it was in the cache, and was verified there
    """

    path: Path
    digest: Digest
    url: str
    signed_by: str | None
    insecure: bool
    cached: bool

    @property
    def facts(self) -> dict[str, object]:
        """What the manifest says of it."""
        return {
            "url": self.url,
            "checksum": str(self.digest),
            "signed_by": self.signed_by,
            "insecure": self.insecure,
            "cached": self.cached,
        }


class MismatchError(MkimageError):
    """A file is not what its checksum says."""


def obtain(
    publication: Publication, images: Images, console: Console, *, insecure: bool = False, policy: Policy | None = None
) -> Obtained:
    """Obtain the newest file of a publication, verified; from the cache where it has it.

    The checksums are read anew on each use: what is in the cache is used as long as it is what is published.

    :param images: prepared
    :param insecure: do without a signature where it is missing; a bad one, and a wrong checksum, are still errors
    :raises HostError: this host lacks gpg, or a key that is not published
    :raises MkimageError: it cannot be fetched, or anything about it is not as it should be
    """
    source = _Source(publication, console, policy or Policy(), insecure=insecure)
    sums = source.read()
    name = sums.newest(publication.image)
    digest = sums.digest(name)
    try:
        return source.fetch(name, digest, images)
    except MismatchError:
        # The publisher may have replaced the file between our two questions.
        again = source.read()
        if again.newest(publication.image) == name and again.digest(name) == digest:
            raise
        name = again.newest(publication.image)
        return source.fetch(name, again.digest(name), images)


def obtain_own(
    text: str, images: Images, console: Console, *, insecure: bool = False, policy: Policy | None = None
) -> Obtained:
    """Obtain an image that the user names (DIB_LOCAL_IMAGE): a path, or a URL with ``#sha256=HEX`` after it.

    A file of this host is the user's own and used as it is. A URL needs the checksum, because nobody else vouches for
    what comes from there.

    :param insecure: do without the checksum
    :raises BadValueError: the URL or its checksum cannot be used, or the path is not a file
    :raises MkimageError: it cannot be fetched, or is not what the checksum says
    """
    bare, fragment = urldefrag(text) if "://" in text else (text, "")
    location, digest = replace(Location.parse(bare), variable="DIB_LOCAL_IMAGE"), parse_digest(fragment)
    if fragment and digest is None:
        raise BadValueError(
            f"{location.shown}: the part after # is not a checksum", "write #sha256= or #sha512= and all of its digits"
        )
    if location.path is not None:
        return _own_file(location, location.path, digest)
    if digest is None and not insecure:
        raise BadValueError(
            f"{location.shown} has no checksum, so nothing tells whether it is the right file",
            "write #sha256=HEX after it, or allow --insecure",
        )
    if digest is None:
        console.warn(f"--insecure: {location.shown} is used without a checksum")
    path, found, cached = _cached(location, digest, images, console, policy or Policy(), limit=64 * GIB)
    return Obtained(path, found, location.shown, None, digest is None, cached)


class _Source:
    """A publication's directory while it is read."""

    def __init__(self, publication: Publication, console: Console, policy: Policy, *, insecure: bool) -> None:
        self._publication = publication
        self._directory = publication.directory
        self._console = console
        self._policy = policy
        self._allowed = insecure
        self._signer: str | None = None
        self._insecure = False

    def read(self) -> Checksums:
        """Read the checksums and check their signature."""
        published, console = self._publication, self._console
        console.activity(f"reading the checksums of {published.title}")
        if published.signed is Signed.NOT and not self._directory.protected:
            self._do_without(f"the checksums of {published.title} are not signed, and plain http does not protect them")
        sums = self._sums()
        wanted = (
            [sums] if published.signed is not Signed.DETACHED else [sums, self._directory.child(published.signature)]
        )
        content, *detached = small_files(wanted, console, self._policy, optional=wanted[1:] if self._allowed else ())
        assert content is not None  # only what is optional can be missing
        if published.signed is Signed.DETACHED:
            if detached[0] is None:
                self._do_without(f"the checksums of {published.title} have no signature here")
            else:
                with self._keyring() as keyring:
                    self._signer = keyring.verify(content, detached[0], sums.shown)
        elif published.signed is Signed.CLEAR:
            if self._allowed and not signature.is_clearsigned(content):
                self._do_without(f"the checksums of {published.title} are not signed here")
            else:
                with self._keyring() as keyring:
                    content, self._signer = keyring.signed_text(content, sums.shown)
        return Checksums(content.decode(errors="replace"), published.algorithm, sums.shown)

    def fetch(self, name: str, digest: Digest, images: Images) -> Obtained:
        """Give the file, from the directory itself if it is on this host, else from the cache or the server."""
        location = self._directory.child(name)
        if location.path is not None:
            _compare_local(location, location.path, digest)
            path, cached = location.path, False
        else:
            limit = self._publication.maximum_bytes
            path, _, cached = _cached(location, digest, images, self._console, self._policy, limit=limit)
        return Obtained(path, digest, location.shown, self._signer, self._insecure, cached)

    def _sums(self) -> Location:
        """Find the file of checksums; where its name has a version in it, the newest in the directory's listing.

        The listing itself is not signed. It can hide a newer file, and cannot make a wrong one pass.
        """
        if not self._publication.listed:
            return self._directory.child(self._publication.sums)
        names = [name for name in self._list() if re.fullmatch(self._publication.sums, name)]
        if not names:
            raise NotThereError(
                f"{self._directory.shown} lists no checksums of {self._publication.title}",
                "check the release and the architecture, or name a mirror",
            )
        return self._directory.child(max(names, key=numbers))

    def _list(self) -> Iterable[str]:
        if self._directory.path is not None:
            try:
                return [path.name for path in self._directory.path.iterdir()]
            except OSError as error:
                raise NotThereError(f"cannot read {self._directory.path}: {error.strerror}") from error
        (page,) = small_files([self._directory.child("")], self._console, self._policy)
        assert page is not None
        links = re.findall(r"""href\s*=\s*["']?([^"'\s>?#]{1,1000})""", page.decode(errors="replace"), re.IGNORECASE)
        return [unquote(link).rpartition("/")[2] for link in links]

    def _keyring(self) -> signature.Keyring:
        key = self._publication.key
        assert key is not None  # of whatever is signed
        material, origin = signature.load_keys(key, self._fetch_keys, self._console)
        self._console.output(f"signing key of {self._publication.title}: from {origin}", keep=False)
        return signature.Keyring(material, key.fingerprints, self._console)

    def _fetch_keys(self, locations: Sequence[Location]) -> Sequence[bytes]:
        return [content for content in small_files(locations, self._console, self._policy) if content is not None]

    def _do_without(self, problem: str) -> None:
        if not self._allowed:
            raise MkimageError(problem, _INSECURE)
        if not self._insecure:
            self._console.warn(f"--insecure: {problem}")
        self._insecure = True


def small_files(
    locations: Sequence[Location],
    console: Console,
    policy: Policy | None = None,
    *,
    optional: Sequence[Location] = (),
) -> list[bytes | None]:
    """Fetch small files side by side; None for an optional one that is not there.

    :raises MkimageError: one cannot be fetched
    """
    transfers, targets = [], []
    for location in locations:
        target = Memory()
        targets.append(target)
        transfer = Transfer(location, target, _SMALL_BYTES, policy, optional=location in optional)
        transfers.append(transfer)
        if location.path is not None:
            transfer.missing = not _read_local(location, location.path, target, optional=location in optional)
    remote = [transfer for transfer in transfers if transfer.location.path is None]
    if remote:
        fetch_all(remote, console)
    return [
        None if transfer.missing else bytes(target.content) for transfer, target in zip(transfers, targets, strict=True)
    ]


def _read_local(location: Location, path: Path, target: Memory, *, optional: bool) -> bool:
    try:
        with path.open("rb") as file:
            target.write(file.read(_SMALL_BYTES))
    except FileNotFoundError as error:
        if optional:
            return False
        raise NotThereError(f"{location.shown} is not there", "check the path") from error
    except OSError as error:
        raise MkimageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    return True


def _compare_local(location: Location, path: Path, digest: Digest) -> None:
    try:
        good = digest.matches(path)
    except OSError as error:
        raise MkimageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    if not good:
        raise _mismatch(location, digest)


def _own_file(location: Location, path: Path, digest: Digest | None) -> Obtained:
    try:
        with path.open("rb") as file:
            found = digest_of(file, digest.algorithm if digest else "sha256")
    except OSError as error:
        raise BadValueError(f"cannot read {path}: {error.strerror}", "name an image file") from error
    if digest is not None and found != digest:
        raise _mismatch(location, digest)
    return Obtained(path, found, location.shown, None, False, False)


def _cached(
    location: Location, digest: Digest | None, images: Images, console: Console, policy: Policy, *, limit: int
) -> tuple[Path, Digest, bool]:
    """Give a file of the cache, or fetch it; with its digest, and whether it was there."""
    console.activity(f"looking for {location.name} in the cache")
    if digest is not None and (path := images.checked(digest, location.name)):
        return path, digest, True
    told = False

    def waiting() -> None:
        nonlocal told
        if not told:
            console.note(f"waiting for another build that fetches {location.name}")
        told = True

    key = str(digest) if digest is not None else location.url
    with images.partial(key, known=digest is not None, on_wait=waiting) as partial:
        # While we waited, the other build may have fetched it.
        if digest is not None and (path := images.checked(digest, location.name)):
            return path, digest, True
        found = _fetch(location, digest, partial, console, policy, limit)
        return partial.publish(images.entry(found, location.name)), found, False


def _fetch(
    location: Location, digest: Digest | None, partial: Partial, console: Console, policy: Policy, limit: int
) -> Digest:
    """Fill a partial and hash it; one that was resumed and is wrong is fetched once more from the beginning."""
    resumed = partial.size > 0
    console.note(f"{'going on with' if resumed else 'fetching'} {location.shown}")
    fetch_all([Transfer(location, partial, limit, policy)], console)
    found = partial.digest(digest.algorithm if digest is not None else "sha256")
    if digest is None or found == digest:
        return found
    if resumed:
        console.note("what was left of an earlier download does not fit: fetching all of it again")
        partial.restart("")
        return _fetch(location, digest, partial, console, policy, limit)
    partial.discard()
    raise _mismatch(location, digest)


def _mismatch(location: Location, digest: Digest) -> MismatchError:
    return MismatchError(
        f"{location.shown} is not what its {digest.algorithm} checksum says",
        "the mirror serves damaged or changed files: try again, or another mirror",
    )
