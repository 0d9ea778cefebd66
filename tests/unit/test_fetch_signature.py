"""Signatures made by real gpg with throw-away keys: which are good, and what is said of the others."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from signing import EXPIRED, IN_THE_PAST, Signer

from amphora_mkimage.console import Console
from amphora_mkimage.errors import HostError, MkimageError
from amphora_mkimage.fetch import signature
from amphora_mkimage.fetch.publication import SigningKey
from amphora_mkimage.fetch.signature import Keyring

TEXT = b"SHA256 (image.qcow2) = 0123\n- a line that clearsigning escapes\n"


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    place = tmp_path_factory.mktemp("keys")
    made = {name: Signer(place, name) for name in ("good", "other", "revoked")}
    made["expired"] = Signer(place, "expired", expires="1d")
    yield SimpleNamespace(**made)
    for signer in made.values():
        signer.close()


@pytest.fixture
def console() -> Console:
    return Console(io.StringIO())


def judge(console: Console, signer: Signer, detached: bytes, content: bytes = TEXT) -> str:
    with Keyring([signer.public()], [signer.fingerprint], console) as keyring:
        return keyring.verify(content, detached, "SUMS")


def problem(console: Console, signer: Signer, detached: bytes, content: bytes = TEXT) -> str:
    with pytest.raises(MkimageError) as raised:
        judge(console, signer, detached, content)
    assert raised.value.remedy
    assert raised.value.what.count("SUMS") == 1
    return raised.value.what


def test_a_good_signature(signers: SimpleNamespace, console: Console) -> None:
    good = signers.good
    assert judge(console, good, good.detached(TEXT)) == good.fingerprint
    assert judge(console, good, good.detached(TEXT, "--armor")) == good.fingerprint
    with Keyring([good.public(armour=False)], [good.fingerprint], console) as keyring:
        assert keyring.verify(TEXT, good.detached(TEXT), "SUMS") == good.fingerprint


def test_a_changed_text(signers: SimpleNamespace, console: Console) -> None:
    changed = TEXT.replace(b"0123", b"0124")
    assert "changed after it was signed" in problem(console, signers.good, signers.good.detached(TEXT), changed)


def test_another_key(signers: SimpleNamespace, console: Console) -> None:
    told = problem(console, signers.good, signers.other.detached(TEXT))
    assert "signed by another key" in told
    assert signers.other.fingerprint in told


def test_an_unpinned_key_of_the_same_file_counts_for_nothing(signers: SimpleNamespace, console: Console) -> None:
    both = signers.other.public() + signers.good.public()
    with Keyring([both], [signers.good.fingerprint], console) as keyring:
        assert keyring.verify(TEXT, signers.good.detached(TEXT), "SUMS") == signers.good.fingerprint
        with pytest.raises(MkimageError, match="signed by another key"):
            keyring.verify(TEXT, signers.other.detached(TEXT), "SUMS")


def test_a_key_that_is_not_the_pinned_one(signers: SimpleNamespace, console: Console) -> None:
    with pytest.raises(MkimageError, match="not the pinned one") as raised:
        Keyring([signers.other.public()], [signers.good.fingerprint], console)
    assert signers.good.fingerprint in raised.value.what
    assert signers.other.fingerprint in raised.value.what


@pytest.mark.parametrize("shortened", [slice(-16, None), slice(0, 39)])
def test_half_a_fingerprint_is_none(shortened: slice, signers: SimpleNamespace, console: Console) -> None:
    with pytest.raises(MkimageError, match="not the pinned one"):
        Keyring([signers.good.public()], [signers.good.fingerprint[shortened]], console)


@pytest.mark.parametrize("material", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"])
def test_no_key(material: bytes, signers: SimpleNamespace, console: Console) -> None:
    with pytest.raises(MkimageError, match="signing key"):
        Keyring([material], [signers.good.fingerprint], console)


def test_an_expired_key(signers: SimpleNamespace, console: Console) -> None:
    expired = signers.expired
    assert "a key that has expired" in problem(console, expired, expired.detached(TEXT, *IN_THE_PAST))


def test_an_expired_signature(signers: SimpleNamespace, console: Console) -> None:
    told = problem(console, signers.good, signers.good.detached(TEXT, *EXPIRED))
    assert "has a signature that has expired" in told


def test_a_revoked_key(signers: SimpleNamespace, console: Console) -> None:
    revoked = signers.revoked
    detached = revoked.detached(TEXT)
    assert judge(console, revoked, detached) == revoked.fingerprint
    revoked.revoke()
    assert "a key that was revoked" in problem(console, revoked, detached)


def test_a_broken_hash(signers: SimpleNamespace, console: Console) -> None:
    status = "[GNUPG:] VALIDSIG {0} 2026-11-24 1 0 4 0 1 {1} 00 {0}"
    fingerprint = signers.good.fingerprint
    for algorithm, good in (("2", False), ("1", False), ("8", True), ("10", True)):
        lines = ["[GNUPG:] NEWSIG", "[GNUPG:] GOODSIG 0 x", status.format(fingerprint, algorithm)]
        if good:
            assert signature.judge(lines, [fingerprint], "SUMS") == fingerprint
        else:
            with pytest.raises(MkimageError, match="broken hash"):
                signature.judge(lines, [fingerprint], "SUMS")


@pytest.mark.parametrize("what", [b"", b"\n", b"no signature", b"<html>404</html>", bytes(range(256))])
def test_no_signature(what: bytes, signers: SimpleNamespace, console: Console) -> None:
    assert "no signature that could be read" in problem(console, signers.good, what)


def test_a_signed_message_is_no_detached_signature(signers: SimpleNamespace, console: Console) -> None:
    """Else a text that was signed some time could vouch for any other."""
    for message in (signers.good.clear(b"other"), signers.good.clear(TEXT), signers.good._gpg("--sign", content=TEXT)):
        problem(console, signers.good, message)


def test_one_good_signature_of_several_is_enough(signers: SimpleNamespace, console: Console) -> None:
    good, other = signers.good, signers.other
    assert judge(console, good, other.detached(TEXT) + good.detached(TEXT)) == good.fingerprint
    assert judge(console, good, good.detached(TEXT) + other.detached(TEXT)) == good.fingerprint
    mixed = good.detached(TEXT) + good.detached(b"another text")
    assert "changed after it was signed" in problem(console, good, mixed)


def test_a_clearsigned_text_gives_what_is_signed_and_nothing_else(signers: SimpleNamespace, console: Console) -> None:
    good = signers.good
    signed = good.clear(TEXT)
    with Keyring([good.public()], [good.fingerprint], console) as keyring:
        assert keyring.signed_text(signed, "SUMS") == (TEXT, good.fingerprint)
        assert keyring.signed_text(signed + b"\nSHA256 (evil) = 0\n", "SUMS")[0] == TEXT


def test_clearsigned_texts_that_are_refused(signers: SimpleNamespace, console: Console) -> None:
    good = signers.good
    signed = good.clear(TEXT)
    with Keyring([good.public()], [good.fingerprint], console) as keyring:
        for text, told in (
            (TEXT, "is not signed"),
            (b"", "is not signed"),
            (b"SHA256 (evil) = 0\n" + signed, "is not signed"),
            (signed + good.clear(b"SHA256 (evil) = 0\n"), "is not signed"),
            (good._gpg("--sign", content=TEXT), "is not signed"),
            (signed.replace(b"0123", b"0124"), "changed after it was signed"),
            (signed[: signed.index(b"-----BEGIN PGP SIGNATURE")], "no signature that could be read"),
            (signers.other.clear(TEXT), "signed by another key"),
            (good.clear(TEXT, *EXPIRED), "signature that has expired"),
        ):
            with pytest.raises(MkimageError, match=told):
                keyring.signed_text(text, "SUMS")


def test_nothing_is_left(
    signers: SimpleNamespace, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    judge(console, signers.good, signers.good.detached(TEXT))
    problem(console, signers.good, b"")
    with pytest.raises(MkimageError):
        Keyring([b"no key"], [signers.good.fingerprint], console)
    assert signature.fingerprints([signers.good.public()], console) == [signers.good.fingerprint]
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_keys_count_for_nothing(
    signers: SimpleNamespace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(signers.other.home))
    assert "signed by another key" in problem(console, signers.good, signers.other.detached(TEXT))


def never(locations: object) -> list[bytes]:
    raise AssertionError("nothing had to be downloaded")


def test_the_hosts_keyring_comes_first(signers: SimpleNamespace, console: Console, tmp_path: Path) -> None:
    wrong, right = tmp_path / "wrong.gpg", tmp_path / "right.gpg"
    wrong.write_bytes(signers.other.public())
    right.write_bytes(signers.good.public(armour=False))
    keyrings = (str(tmp_path / "missing.gpg"), str(wrong), str(right))
    key = SigningKey((signers.good.fingerprint,), "nowhere", keyrings, ("https://keys.invalid/key",))
    material, origin = signature.load_keys(key, never, console)
    assert origin == str(right)
    with Keyring(material, key.fingerprints, console) as keyring:
        assert keyring.verify(TEXT, signers.good.detached(TEXT), "SUMS") == signers.good.fingerprint


def test_a_key_that_the_host_lacks_is_downloaded_and_compared(signers: SimpleNamespace, console: Console) -> None:
    key = SigningKey((signers.good.fingerprint,), "nowhere", ("/nonexistent",), ("https://keys.invalid/key?search=1",))
    material, origin = signature.load_keys(key, lambda locations: [signers.other.public()], console)
    assert origin == "https://keys.invalid/key"
    with pytest.raises(MkimageError, match="not the pinned one"):
        Keyring(material, key.fingerprints, console)


def test_a_key_that_is_nowhere(signers: SimpleNamespace, console: Console) -> None:
    with pytest.raises(HostError, match=signers.good.fingerprint) as raised:
        signature.load_keys(SigningKey((signers.good.fingerprint,), "nowhere", ("/nonexistent",)), never, console)
    assert "/nonexistent" in raised.value.remedy


def test_without_gpg(
    signers: SimpleNamespace, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = signers.good.public()
    monkeypatch.setattr("amphora_mkimage.process.environment", lambda: {"PATH": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="gpg is not installed") as raised:
        Keyring([public], [signers.good.fingerprint], console)
    assert "gnupg" in raised.value.remedy
