"""Files of checksums: what is read, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.checksums import Checksums, Digest, parse_digest

A, B = "a" * 64, "b" * 64
LONG = "c" * 128


def digest(text: str, name: str = "image.qcow2", algorithm: str = "sha256") -> str:
    return Checksums(text, algorithm, "SUMS").digest(name).hex


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  image.qcow2\n",
        f"{A} *image.qcow2\n",
        f"{A.upper()} *image.qcow2\n",
        f"SHA256 (image.qcow2) = {A}\n",
        f"SHA256 (image.qcow2) = {A}",
        f"# image.qcow2: 1234 bytes\nSHA256 (image.qcow2) = {A}\n",
        f"# {B}  image.qcow2\n{A}  image.qcow2\n",
        f"{B}  other\r\n{A}  image.qcow2\r\n",
        f"{A}  image.qcow2\n{A} *image.qcow2\n",
        f"MD5 (image.qcow2) = {'d' * 32}\nSHA1 (image.qcow2) = {'e' * 40}\nSHA256 (image.qcow2) = {A}\n",
        f"{B}  my image.qcow2\n{B}  image.qcow2.sig\n{B}  dir/image.qcow2\n{B}  ./image.qcow2\n{A}  image.qcow2\n",
        f"{B}  x\x0b{B}  image.qcow2\n{A}  image.qcow2\n",  # str.splitlines would see another line there
    ],
)
def test_what_is_read(text: str) -> None:
    assert digest(text) == A


def test_sha512() -> None:
    assert digest(f"{LONG}  image.qcow2\n", algorithm="sha512") == LONG


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no checksums at all"),
        ("\n\n", "no checksums at all"),
        ("# nothing but a remark\n", "no checksums at all"),
        ("<html><body>404 Not Found</body></html>\n", "no checksums at all"),
        (f"{A}\n", "no checksums at all"),
        (f"{A} image.qcow2\n", "no checksums at all"),
        (f"{A}   image.qcow2\n", "no checksum for image.qcow2"),
        (f"{A}  image.qcow2.sig\n", "no checksum for image.qcow2"),
        (f"{A}  other-image.qcow2\n", "no checksum for image.qcow2"),
        (f"{A}  IMAGE.qcow2\n", "no checksum for image.qcow2"),
        ("  image.qcow2\n", "no usable sha256 checksum"),
        ("sha256:  image.qcow2\n", "no checksums at all"),
        ("SHA256 (image.qcow2) = \n", "no usable sha256 checksum"),
        ("SHA256 (image.qcow2) =\n", "no usable sha256 checksum"),
        (f"{A[:-1]}  image.qcow2\n", "no usable sha256 checksum"),
        (f"{A}a  image.qcow2\n", "no usable sha256 checksum"),
        (f"SHA256 (image.qcow2) = {A}a\n", "no usable sha256 checksum"),
        (f"SHA256 (image.qcow2) = {A} \n", "no usable sha256 checksum"),
        (f"{'d' * 32}  image.qcow2\n", "no usable sha256 checksum"),
        (f"{'e' * 40}  image.qcow2\n", "no usable sha256 checksum"),
        (f"MD5 (image.qcow2) = {'d' * 32}\n", "no usable sha256 checksum"),
        (f"SHA1 (image.qcow2) = {A}\n", "no usable sha256 checksum"),
        (f"SHA512 (image.qcow2) = {LONG}\n", "no usable sha256 checksum"),
        (f"{A}  image.qcow2\n{B}  image.qcow2\n", "different checksums"),
        (f"{A}  image.qcow2\nSHA256 (image.qcow2) = {B}\n", "different checksums"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(MkimageError, match=problem) as raised:
        digest(text)
    assert raised.value.what.startswith("SUMS ")
    assert raised.value.remedy


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "crc32"])
def test_weak_algorithms_are_never_accepted(algorithm: str) -> None:
    length = {"md5": 32, "sha1": 40, "sha224": 56, "crc32": 8}[algorithm]
    with pytest.raises(MkimageError):
        digest(f"{algorithm.upper()} (image.qcow2) = {'a' * length}\n", algorithm=algorithm)
    assert parse_digest(f"{algorithm}:{'a' * length}") is None


def test_the_newest_by_its_numbers() -> None:
    names = [f"Image-10-{version}.qcow2" for version in ("20260818.0", "20260818.10", "20260818.9", "20251231.11")]
    names += ["Image-10-latest.qcow2", "Image-10-20270101.0.qcow2.sig", "Other-10-20270101.0.qcow2"]
    sums = Checksums("".join(f"{A}  {name}\n" for name in names), "sha256", "SUMS")
    assert sums.newest(r"Image-10-[0-9]{8}\.[0-9]+\.qcow2") == "Image-10-20260818.10.qcow2"
    with pytest.raises(MkimageError, match="names no file"):
        sums.newest(r"Image-9-.*")


def test_an_empty_checksum_of_the_newest_is_no_reason_to_take_an_older_one() -> None:
    sums = Checksums(f"SHA256 (Image-1.qcow2) = {A}\nSHA256 (Image-2.qcow2) = \n", "sha256", "SUMS")
    name = sums.newest(r"Image-[0-9]\.qcow2")
    assert name == "Image-2.qcow2"
    with pytest.raises(MkimageError, match="no usable"):
        sums.digest(name)


def test_names_without_end_are_passed_over() -> None:
    sums = Checksums(f"{A}  Image-{'9' * 100_000}.qcow2\n{A}  Image-1.qcow2\n", "sha256", "SUMS")
    assert sums.newest(r"Image-[0-9]+\.qcow2") == "Image-1.qcow2"


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha256=", f"sha256:{A[1:]}", f"sha256:{A}\n", A, ":" + A])
def test_no_digest(text: str) -> None:
    assert parse_digest(text) is None


def test_a_digest_fits_its_file_only(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    file = tmp_path / "file"
    file.write_bytes(content)
    wanted = parse_digest(f"sha256={hashlib.sha256(content).hexdigest().upper()}")
    assert wanted is not None and wanted.matches(file)
    assert not Digest("sha512", LONG).matches(file)
    changed = bytearray(content)
    changed[12_345] ^= 1
    file.write_bytes(changed)
    assert not wanted.matches(file)
