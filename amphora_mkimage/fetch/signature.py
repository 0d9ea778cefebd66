"""Check OpenPGP signatures with gpg(1), in a private and temporary home, against pinned keys only.

gpg tells what it found by status lines (GnuPG's doc/DETAILS), of which every good, bad, expired, revoked or unknown
signature has its own. gpgv(1) would be smaller, but its manual says that it takes every key for trustworthy, expired
and revoked ones too.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from amphora_mkimage import process
from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch.publication import Location, SigningKey

_ARMOUR = b"-----BEGIN PGP SIGNED MESSAGE-----"
#: MD5, SHA-1 and RIPEMD-160 by their OpenPGP numbers (RFC 9580, 9.5): signatures over them can be forged, or soon.
_BROKEN_HASHES = {"1", "2", "3"}
_SECONDS = 60.0
_PREFIX = "amphora-mkimage-gpg-"
_OTHER_KEY = (
    "a mirror or somebody on the way may have changed it: do not use it; look whether the publisher has new keys"
)
_CHANGED = "the mirror serves damaged or changed files: try again, or another mirror"
#: A signature that would be good, but for its time or its key.
_NOT_GOOD = {
    "REVKEYSIG": ("is signed with a key that was revoked", _OTHER_KEY),
    "EXPKEYSIG": (
        "is signed with a key that has expired",
        "update this host's keyring package, or look whether the publisher has new keys; if this host's clock is "
        "ahead, set it",
    ),
    "EXPSIG": (
        "has a signature that has expired",
        "look whether the publisher has signed it again; set this host's clock if it is ahead",
    ),
}


class Keyring:
    """The pinned keys, in a gpg home of their own that is gone afterwards; use it in a ``with``.

    :param material: OpenPGP public keys, armoured or not
    :param fingerprints: primary keys that may sign; all others in the material are dropped
    :raises HostError: gpg is not installed
    :raises MkimageError: none of the fingerprints is in the material
    """

    def __init__(self, material: Sequence[bytes], fingerprints: Sequence[str], console: Console) -> None:
        self._console = console
        self._fingerprints = tuple(fingerprints)
        self._home = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._pinned = self._home / "pinned.gpg"
        try:
            self._import(material)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Keyring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the home."""
        shutil.rmtree(self._home, ignore_errors=True)

    def verify(self, content: bytes, signature: bytes, name: str) -> str:
        """Check a detached signature; gives the fingerprint of the primary key that made it.

        :param name: what messages call the content
        :raises MkimageError: it is not good
        """
        data, detached = self._home / "content", self._home / "signature"
        data.write_bytes(content)
        detached.write_bytes(signature)
        return self._judge(["--verify", str(detached), str(data)], name)

    def signed_text(self, content: bytes, name: str) -> tuple[bytes, str]:
        """Check a clearsigned text; gives what is signed of it, and nothing else, and the signer's fingerprint.

        :raises MkimageError: it is not signed, or not well
        """
        # Anything else would be a message that gpg decompresses or decrypts, or one with unsigned text before it.
        if not is_clearsigned(content) or content.count(_ARMOUR) != 1:
            raise MkimageError(f"{name} is not signed", _CHANGED)
        data, text = self._home / "clearsigned", self._home / "text"
        data.write_bytes(content)
        text.unlink(missing_ok=True)
        signer = self._judge(["--output", str(text), "--decrypt", str(data)], name)
        return text.read_bytes(), signer

    def _import(self, material: Sequence[bytes]) -> None:
        found = _imported(self._home, material, self._console)
        if not set(found) & set(self._fingerprints):
            raise MkimageError(
                f"the signing key is not the pinned one: expected {' or '.join(self._fingerprints)}, "
                f"found {', '.join(found) or 'none'}",
                _OTHER_KEY,
            )
        self._gpg(["--output", str(self._pinned), "--export", *self._fingerprints], "cannot read the signing keys")

    def _judge(self, arguments: Sequence[str], name: str) -> str:
        status = self._home / "status"
        status.unlink(missing_ok=True)
        keyring = ["--no-default-keyring", "--keyring", str(self._pinned), "--status-file", str(status)]
        tail: Sequence[str] = ()
        try:
            self._gpg([*keyring, *arguments], f"cannot check the signature of {name}")
        except HostError:
            raise
        except MkimageError as error:  # what is wrong stands in the status file
            tail = error.tail
        lines = status.read_text(encoding="utf-8", errors="replace").splitlines() if status.exists() else []
        return judge(lines, self._fingerprints, name, tail)

    def _gpg(self, arguments: Sequence[str], what: str) -> str:
        return _gpg(self._home, arguments, what, self._console)


def is_clearsigned(content: bytes) -> bool:
    """Tell whether a text is of the form of a clearsigned one; says nothing about its signature."""
    return content.startswith(_ARMOUR)


def load_keys(
    key: SigningKey, fetch: Callable[[Sequence[Location]], Sequence[bytes]], console: Console
) -> tuple[list[bytes], str]:
    """Give the material of a signing key, and where it is from: the host's keyring, else what is published.

    :param fetch: downloads small files
    :raises MkimageError: there is none, or it is not the pinned one
    """
    for path in map(Path, key.keyrings):
        try:
            material = [path.read_bytes()]
        except OSError:
            continue
        if set(fingerprints(material, console)) & set(key.fingerprints):
            return material, str(path)
        console.note(f"{path} has no key that is wanted")
    if not key.urls:
        raise HostError(
            f"the signing key {' or '.join(key.fingerprints)} is not on this host",
            f"put it into {' or '.join(key.keyrings)}" if key.keyrings else "",
        )
    locations = [Location.parse(url) for url in key.urls]
    return list(fetch(locations)), locations[0].shown


def fingerprints(material: Sequence[bytes], console: Console) -> list[str]:
    """Give the fingerprints of the primary keys in some material, of those that gpg can read.

    :raises HostError: gpg is not installed
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as home:
        return _imported(Path(home), material, console)


def judge(lines: Sequence[str], pinned: Sequence[str], name: str, tail: Sequence[str] = ()) -> str:
    """Read gpg's status lines: the fingerprint of a pinned primary key that made a good signature, or an error.

    Several signatures are judged one by one. One that does not fit the content is always an error; one by a key that is
    not pinned is none, as long as another is good.

    :raises MkimageError: no signature is good
    """
    signatures, problems = _signatures(lines), []
    if any("BADSIG" in signature for signature in signatures):
        raise MkimageError(f"the signature of {name} does not fit: it was changed after it was signed", _CHANGED)
    for signature in signatures:
        problem, remedy = _good(signature, pinned)
        if not problem:
            return signature["VALIDSIG"][9]
        problems.append((problem, remedy))
    if problems:
        problem, remedy = problems[0]
        raise MkimageError(f"{name} {problem}", remedy, tail=tail)
    raise MkimageError(f"{name} has no signature that could be read", _CHANGED, tail=tail)


def _good(signature: dict[str, list[str]], pinned: Sequence[str]) -> tuple[str, str]:
    """Give the problem with one signature and its remedy, two empty strings if there is none."""
    for keyword, (problem, remedy) in _NOT_GOOD.items():
        if keyword in signature:
            return f"{problem} ({signature[keyword][0]})", remedy
    if "ERRSIG" in signature:
        return _unchecked(signature["ERRSIG"])
    valid = signature.get("VALIDSIG", [])
    if "GOODSIG" not in signature or len(valid) < 10:
        return "has no signature that could be read", _CHANGED
    if valid[9] not in pinned:
        return f"is signed by another key ({valid[9]})", _OTHER_KEY
    if valid[7] in _BROKEN_HASHES:
        return "is signed over a broken hash (MD5, SHA-1 or RIPEMD-160)", _OTHER_KEY
    return "", ""


def _unchecked(fields: Sequence[str]) -> tuple[str, str]:
    """Read ERRSIG: keyid, public key algorithm, hash algorithm, class, time, rc, fingerprint; rc 9 is a missing key."""
    keyid, *_, code, fingerprint = (*fields, "")[:7]
    if code == "9":
        return f"is signed by another key ({fingerprint if len(fingerprint) > 16 else keyid})", _OTHER_KEY
    return "has a signature that gpg cannot check", "gpg on this host may be too old for it"


def _signatures(lines: Sequence[str]) -> list[dict[str, list[str]]]:
    """Group status lines by signature; each begins with NEWSIG."""
    found: list[dict[str, list[str]]] = []
    for line in lines:
        match = re.fullmatch(r"\[GNUPG:\] ([A-Z_0-9]+)(?: (.*))?", line)
        if match and match[1] == "NEWSIG":
            found.append({})
        elif match and found:
            found[-1].setdefault(match[1], (match[2] or "").split(" "))
    return found


def _imported(home: Path, material: Sequence[bytes], console: Console) -> list[str]:
    """Import keys into a home; gives the fingerprints of all primary keys that are there then."""
    for number, blob in enumerate(material):
        file = home / f"key-{number}"
        file.write_bytes(blob)
        try:
            _gpg(home, ["--import", str(file)], "cannot import the signing keys", console)
        except HostError:
            raise
        except MkimageError:
            pass  # a file may hold keys of a newer kind beside those that are wanted; the listing tells what is there
    found, primary = [], False
    for line in _gpg(home, ["--with-colons", "--list-keys"], "cannot list the signing keys", console).splitlines():
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            primary = fields[0] == "pub"
        elif fields[0] == "fpr" and primary and len(fields) > 9:
            found.append(fields[9])
            primary = False
    return found


def _gpg(home: Path, arguments: Sequence[str], what: str, console: Console) -> str:
    argv = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--no-options", "--no-autostart"]
    # No web of trust: the pinned fingerprints say which keys are trusted. Nothing is looked up anywhere.
    argv += ["--no-auto-check-trustdb", "--no-auto-key-retrieve", "--disable-dirmngr"]
    try:
        return process.run([*argv, *arguments], console, what=what, deadline=_SECONDS)
    except HostError as error:
        raise HostError(f"{what}: gpg is not installed", "install the package gnupg") from error
