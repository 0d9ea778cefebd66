"""Whole ways from a publication to a verified file, with a real server and real signatures."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer, running
from signing import IN_THE_PAST, Signer

from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError, MkimageError
from amphora_mkimage.fetch.images import Images
from amphora_mkimage.fetch.publication import Publication, Signed, SigningKey, on_mirror, redirect
from amphora_mkimage.fetch.published import Obtained, obtain, obtain_own
from amphora_mkimage.fetch.transport import NotThereError, Policy

CONTENT = random.Random(2).randbytes(300_000)
POLICY = Policy(first_delay=0.001, longest_delay=0.002)
NAME = "image-2.10.x86_64.tar.xz"


def sum_of(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


SUMS = f"{sum_of(b'old')} *image-2.9.x86_64.tar.xz\n{sum_of(CONTENT)} *{NAME}\n{sum_of(b'')} *image-3.0.arm.tar.xz\n"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    made = Signer(tmp_path_factory.mktemp("keys"), "good")
    yield made
    made.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    made = Signer(tmp_path_factory.mktemp("keys"), "other")
    yield made
    made.close()


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    made = Signer(tmp_path_factory.mktemp("keys"), "expired", expires="1d")
    yield made
    made.close()


class Place:
    """A publisher's server, and a user's cache."""

    def __init__(self, server: FaultServer, signer: Signer, directory: Path) -> None:
        self.server = server
        self.signer = signer
        self.log = io.StringIO()
        self.console = Console(self.log)
        self.images = Images(directory / "cache", self.console.warn)
        self.images.prepare()
        self.publication = Publication(
            title="Test 2",
            root=server.url,
            path="pub/2",
            image=r"image-[0-9]+\.[0-9]+\.x86_64\.tar\.xz",
            kind="tar",
            sums="SHA256SUMS",
            signed=Signed.DETACHED,
            signature="SHA256SUMS.gpg",
            key=SigningKey((signer.fingerprint,), "nowhere", ("/nonexistent",), (f"{server.url}/key.asc",)),
        )
        self.publish(SUMS)
        server.files |= {f"/pub/2/{NAME}": CONTENT, "/key.asc": signer.public()}

    def publish(self, sums: str, *, signer: Signer | None = None, options: tuple[str, ...] = ()) -> None:
        content = sums.encode()
        detached = (signer or self.signer).detached(content, *options)
        self.server.files |= {"/pub/2/SHA256SUMS": content, "/pub/2/SHA256SUMS.gpg": detached}

    def obtain(self, *, insecure: bool = False, **changes: object) -> Obtained:
        publication = replace(self.publication, **changes)  # type: ignore[arg-type]
        return obtain(publication, self.images, self.console, insecure=insecure, policy=POLICY)

    def refused(self, told: str, *, insecure: bool = False, **changes: object) -> MkimageError:
        with pytest.raises(MkimageError, match=told) as raised:
            self.obtain(insecure=insecure, **changes)
        assert self.left() == []
        return raised.value

    def left(self) -> list[str]:
        return sorted(path.name for path in self.images.root.iterdir())


@pytest.fixture
def place(signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as server:
        yield Place(server, signer, tmp_path)


def test_the_newest_file_is_fetched_verified_and_kept(place: Place, signer: Signer) -> None:
    first = place.obtain()
    assert first.path.read_bytes() == CONTENT
    assert first.url == f"{place.server.url}/pub/2/{NAME}"
    assert first.digest.hex == sum_of(CONTENT)
    assert (first.signed_by, first.insecure, first.cached) == (signer.fingerprint, False, False)
    assert place.left() == [f"{sum_of(CONTENT)}-{NAME}"]
    second = place.obtain()
    assert second == replace(first, cached=True)
    assert len(place.server.asked(f"/pub/2/{NAME}")) == 1
    assert second.facts["signed_by"] == signer.fingerprint


def test_a_wrong_checksum(place: Place) -> None:
    place.publish(SUMS.replace(sum_of(CONTENT), sum_of(b"something else")))
    error = place.refused("is not what its sha256 checksum says")
    assert NAME in error.what


def test_a_wrong_signature(place: Place) -> None:
    place.server.files["/pub/2/SHA256SUMS"] += f"{sum_of(b'evil')} *image-99.0.x86_64.tar.xz\n".encode()
    place.refused("changed after it was signed")
    place.refused("changed after it was signed", insecure=True)


def test_signed_by_another_key(place: Place, other: Signer) -> None:
    place.publish(SUMS, signer=other)
    place.refused("signed by another key")
    place.refused("signed by another key", insecure=True)


def test_a_downloaded_key_that_does_not_match_its_fingerprint(place: Place, other: Signer) -> None:
    place.publish(SUMS, signer=other)
    place.server.files["/key.asc"] = other.public()
    place.refused("not the pinned one")


def test_an_expired_key(place: Place, expired: Signer) -> None:
    place.publish(SUMS, signer=expired, options=IN_THE_PAST)
    place.server.files["/key.asc"] = expired.public()
    key = replace(place.publication.key, fingerprints=(expired.fingerprint,))  # type: ignore[type-var]
    place.refused("key that has expired", key=key)


def test_no_key_to_be_had(place: Place) -> None:
    del place.server.files["/key.asc"]
    place.refused("/key.asc is not there")


def test_unsigned(place: Place) -> None:
    del place.server.files["/pub/2/SHA256SUMS.gpg"]
    place.refused("SHA256SUMS.gpg is not there")
    found = place.obtain(insecure=True)
    assert (found.signed_by, found.insecure) == (None, True)
    assert found.facts["insecure"] is True
    assert "warning: --insecure" in place.log.getvalue()


def test_insecure_changes_nothing_where_nothing_is_missing(place: Place, signer: Signer) -> None:
    found = place.obtain(insecure=True)
    assert (found.signed_by, found.insecure) == (signer.fingerprint, False)
    assert "warning" not in place.log.getvalue()


def test_insecure_still_wants_the_checksum(place: Place) -> None:
    del place.server.files["/pub/2/SHA256SUMS.gpg"]
    place.server.files[f"/pub/2/{NAME}"] = CONTENT[:-1]
    place.refused("is not what its sha256 checksum says", insecure=True)
    del place.server.files["/pub/2/SHA256SUMS"]
    place.refused("SHA256SUMS is not there", insecure=True)


def test_a_publisher_who_does_not_sign(place: Place) -> None:
    del place.server.files["/pub/2/SHA256SUMS.gpg"]
    found = place.obtain(signed=Signed.NOT, signature="", key=None)  # loopback: nobody is on the way
    assert (found.signed_by, found.insecure) == (None, False)


def test_without_signature_and_without_tls_there_is_nothing_to_trust(place: Place) -> None:
    changes = {"root": "http://mirror.invalid/x", "signed": Signed.NOT, "signature": "", "key": None}
    error = place.refused("not signed, and plain http does not protect them", **changes)
    assert "https" in error.remedy


@pytest.mark.parametrize("sums", ["", "# remark\n", "<html></html>\n"])
def test_empty_checksums(sums: str, place: Place) -> None:
    place.publish(sums)
    place.refused("no checksums at all")


def test_clearsigned_checksums_whose_name_has_a_version(place: Place, signer: Signer, other: Signer) -> None:
    links = "".join(
        f'<a href="{name}">x</a>' for name in ("Test-2-1.7-CHECKSUM", "/x/Test-2-1.10-CHECKSUM", "Test-3-1.1-CHECKSUM")
    )
    bsd = f"# {NAME}: {len(CONTENT)} bytes\nSHA256 ({NAME}) = {sum_of(CONTENT)}\n".encode()
    place.server.files |= {"/pub/2/": links.encode(), "/pub/2/Test-2-1.10-CHECKSUM": signer.clear(bsd)}
    changes = {"listed": True, "sums": r"Test-2-[0-9]+\.[0-9]+-CHECKSUM", "signed": Signed.CLEAR, "signature": ""}
    assert place.obtain(**changes).signed_by == signer.fingerprint
    evil = b"SHA256 (image-99.0.x86_64.tar.xz) = " + b"0" * 64 + b"\n"
    for content, told in (
        (evil + signer.clear(bsd), "is not signed"),
        (other.clear(bsd), "another key"),
        (bsd, "not signed"),
    ):
        place.server.files["/pub/2/Test-2-1.10-CHECKSUM"] = content
        with pytest.raises(MkimageError, match=told):
            place.obtain(**changes)
    found = place.obtain(insecure=True, **changes)
    assert (found.signed_by, found.insecure, found.cached) == (None, True, True)
    place.server.files["/pub/2/"] = b"nothing"
    with pytest.raises(NotThereError, match="lists no checksums"):
        place.obtain(**changes)


def test_a_release_that_is_not_there(place: Place) -> None:
    error = place.refused(r"/pub/3/SHA256SUMS is not there \(404\)|SHA256SUMS.gpg is not there", path="pub/3")
    assert "release" in error.remedy


def test_an_architecture_that_is_not_there(place: Place) -> None:
    place.refused("names no file that is wanted", image=r"image-.*\.riscv64\.tar\.xz")


def test_a_file_that_is_replaced_between_the_questions(place: Place) -> None:
    """The publisher's files are new already when the checksums that were read are still the old ones."""
    old = SUMS.replace(sum_of(CONTENT), sum_of(b"of yesterday")).encode()
    place.server.files |= {"/pub/2/SHA256SUMS": old, "/pub/2/SHA256SUMS.gpg": place.signer.detached(old)}
    seen = place.server.seen

    class Files(dict):  # type: ignore[type-arg]
        def get(self, path: str, default: object = None) -> object:
            if path == f"/pub/2/{NAME}" and len(seen) == 4:
                place.publish(SUMS)
            return super().get(path, default)

    place.server.files = Files(place.server.files)
    assert place.obtain().path.read_bytes() == CONTENT


def test_a_file_that_is_too_large(place: Place) -> None:
    place.refused("larger than 1000 bytes", maximum_bytes=1000)


def test_a_server_that_claims_too_little(place: Place) -> None:
    place.server.faults[f"/pub/2/{NAME}"] = Fault(length=1000)
    place.refused("is not what its sha256 checksum says")


def test_a_download_that_broke_off_goes_on_the_next_time(place: Place) -> None:
    path = f"/pub/2/{NAME}"
    place.server.faults[path] = Fault(cut=100_000, ignore_ranges=True)
    with pytest.raises(MkimageError, match="tried 5 times"):
        place.obtain()
    (partial,) = place.left()
    assert partial.startswith(".partial-")
    place.server.faults.clear()
    place.server.seen.clear()
    assert place.obtain().path.read_bytes() == CONTENT
    assert place.server.ranges(path) == ["bytes=100000-"]
    assert place.left() == [f"{sum_of(CONTENT)}-{NAME}"]


def test_what_is_left_and_damaged_is_fetched_again(place: Place) -> None:
    place.server.faults[f"/pub/2/{NAME}"] = Fault(cut=100_000, ignore_ranges=True)
    with pytest.raises(MkimageError):
        place.obtain()
    (partial,) = place.images.root.iterdir()
    damaged = bytearray(partial.read_bytes())
    damaged[50_000] ^= 1
    partial.write_bytes(damaged)
    place.server.faults.clear()
    assert place.obtain().path.read_bytes() == CONTENT
    assert "fetching all of it again" in place.log.getvalue()


def test_another_directory_and_another_mirror(place: Place, tmp_path: Path) -> None:
    elsewhere = redirect(place.publication, f"{place.server.url}/my/images/")
    mirrored = on_mirror(place.publication, f"{place.server.url}/mirror")
    for prefix in ("/my/images", "/mirror/pub/2"):
        for name in ("SHA256SUMS", "SHA256SUMS.gpg", NAME):
            place.server.files[f"{prefix}/{name}"] = place.server.files[f"/pub/2/{name}"]
    for number, publication in enumerate((elsewhere, mirrored)):
        images = Images(tmp_path / str(number), place.console.warn)
        images.prepare()
        assert obtain(publication, images, place.console, policy=POLICY).path.read_bytes() == CONTENT
    with pytest.raises(BadValueError):
        redirect(place.publication, "ftp://mirror.example/")


def test_a_mirror_on_this_host(place: Place, tmp_path: Path, signer: Signer) -> None:
    directory = tmp_path / "mirror of mine"
    directory.mkdir()
    for name in ("SHA256SUMS", "SHA256SUMS.gpg", NAME):
        (directory / name).write_bytes(place.server.files[f"/pub/2/{name}"])
    publication = redirect(place.publication, str(directory))
    found = obtain(publication, place.images, place.console, policy=POLICY)
    assert (found.path, found.signed_by) == (directory / NAME, signer.fingerprint)
    (directory / NAME).write_bytes(CONTENT[::-1])
    with pytest.raises(MkimageError, match="is not what its sha256 checksum says"):
        obtain(publication, place.images, place.console, policy=POLICY)
    (directory / "SHA256SUMS.gpg").unlink()
    with pytest.raises(NotThereError):
        obtain(publication, place.images, place.console, policy=POLICY)


def test_credentials_do_not_get_out(place: Place) -> None:
    secret = "Hunter2secret"
    root = place.server.url.replace("//", f"//user:{secret}@")
    found = place.obtain(root=root)
    assert secret not in f"{found!r} {found.facts} {place.log.getvalue()} {replace(place.publication, root=root)!r}"
    with pytest.raises(MkimageError) as raised:
        place.obtain(root=root, path="gone")
    assert secret not in f"{raised.value} {raised.value.remedy}"


def test_an_image_of_ones_own(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "my image.qcow2"
    file.write_bytes(CONTENT)
    for text in (str(file), file.as_uri(), f"{file.as_uri()}#sha256={sum_of(CONTENT)}"):
        found = obtain_own(text, place.images, place.console)
        assert (found.path, found.digest.hex, found.insecure) == (file, sum_of(CONTENT), False)
    with pytest.raises(MkimageError, match="is not what its sha512"):
        obtain_own(f"{file.as_uri()}#sha512={'0' * 128}", place.images, place.console)
    for text in ("/nonexistent/image", str(tmp_path)):
        with pytest.raises(BadValueError, match="cannot read"):
            obtain_own(text, place.images, place.console)


def test_an_image_of_ones_own_from_a_url(place: Place) -> None:
    url = f"{place.server.url}/pub/2/{NAME}"
    with pytest.raises(BadValueError, match="has no checksum"):
        obtain_own(url, place.images, place.console)
    for fragment in ("sha256=", "sha256:", "md5=" + "0" * 32, "sha256=" + "0" * 63, "x"):
        with pytest.raises(BadValueError, match="is not a checksum"):
            obtain_own(f"{url}#{fragment}", place.images, place.console)
    with pytest.raises(MkimageError, match="is not what its sha512"):
        obtain_own(f"{url}#sha512={'0' * 128}", place.images, place.console, policy=POLICY)
    found = obtain_own(f"{url}#sha512={sum_of(CONTENT, 'sha512')}", place.images, place.console, policy=POLICY)
    assert (found.path.read_bytes(), found.insecure) == (CONTENT, False)
    again = obtain_own(f"{url}#sha512={sum_of(CONTENT, 'sha512')}", place.images, place.console, policy=POLICY)
    assert again.cached
    found = obtain_own(url, place.images, place.console, insecure=True, policy=POLICY)
    assert (found.path.read_bytes(), found.insecure) == (CONTENT, True)
