"""Outputs appear complete or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from amphora_mkimage import output
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.output import Output


@pytest.fixture(params=["nameless", "hidden"])
def filesystem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With O_TMPFILE, and as on a filesystem without it (NFS), which answers EOPNOTSUPP."""
    kind = str(request.param)
    if kind == "hidden":
        original = os.open

        def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return original(path, flags, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse)
    return kind


def visible(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("."))


def test_nothing_before_publish_and_all_after(tmp_path: Path, filesystem: str) -> None:
    file = Output(tmp_path / "image")
    file.write(b"content")
    assert visible(tmp_path) == []
    assert filesystem == "hidden" or list(tmp_path.iterdir()) == []
    assert file.size == 7
    assert file.hash() == file.sha256 == hashlib.sha256(b"content").hexdigest()
    file.publish()
    file.close()
    assert (tmp_path / "image").read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 1


def test_publish_replaces(tmp_path: Path, filesystem: str) -> None:
    (tmp_path / "image").write_bytes(b"old")
    reader = (tmp_path / "image").open("rb")
    file = Output(tmp_path / "image")
    file.write(b"new")
    assert (tmp_path / "image").read_bytes() == b"old"
    file.publish()
    file.close()
    assert (tmp_path / "image").read_bytes() == b"new"
    assert reader.read() == b"old"  # who reads the old image reads it to its end
    reader.close()


def test_close_without_publish_leaves_nothing(tmp_path: Path, filesystem: str) -> None:
    file = Output(tmp_path / "image")
    file.write(b"content")
    file.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(umask: int, mode: int, tmp_path: Path, filesystem: str) -> None:
    old = os.umask(umask)
    try:
        file = Output(tmp_path / "image")
        file.publish()
        file.close()
    finally:
        os.umask(old)
    assert (tmp_path / "image").stat().st_mode & 0o777 == mode


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadValueError):
        Output(tmp_path / "absent" / "image")


def test_sums_are_merged_and_accepted_by_sha256sum(tmp_path: Path) -> None:
    for name in ("other.iso", "a b.qcow2", "c.tar"):
        (tmp_path / name).write_text(name)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'other.iso').hexdigest()}  other.iso\n")
    output.record_sums(tmp_path, {"a b.qcow2": hashlib.sha256(b"a b.qcow2").hexdigest(), "c.tar": "0" * 64}, {})
    output.record_sums(tmp_path, {"c.tar": hashlib.sha256(b"c.tar").hexdigest()}, {})
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(done.stdout.splitlines()) == ["a b.qcow2: OK", "c.tar: OK", "other.iso: OK"]


def test_lines_of_others_stay_whatever_they_are(tmp_path: Path) -> None:
    path, digest = tmp_path / "SHA256SUMS", "0" * 64
    others = f"# ours\n{digest} *binary.iso\nSHA256 (bsd.iso) = {digest}\n".encode()
    path.write_bytes(others + digest.encode() + b"  \xff.iso\n")
    output.record_sums(tmp_path, {"a.qcow2": digest}, {})
    content = path.read_bytes()
    assert content.startswith(others)
    assert sorted(content[len(others) :].splitlines()) == [
        f"{digest}  a.qcow2".encode(),
        digest.encode() + b"  \xff.iso",
    ]


def test_keep_old_renames_image_manifest_and_sum(tmp_path: Path) -> None:
    image = tmp_path / "amphora-1.0.qcow2"
    assert output.keep_old(image) is None
    image.write_text("old")
    output.manifest_path(image).write_text("{}")
    output.record_sums(tmp_path, {image.name: hashlib.sha256(b"old").hexdigest()}, {})
    os.utime(image, (0, 0))
    kept = output.keep_old(image)
    assert kept is not None
    assert kept.name.startswith("amphora-1.0-19") and kept.suffix == ".qcow2"
    assert kept.read_text() == "old"
    assert output.manifest_path(kept).exists()
    image.write_text("new")
    output.record_sums(tmp_path, {image.name: hashlib.sha256(b"new").hexdigest()}, {image.name: kept.name})
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2
