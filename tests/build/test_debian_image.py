"""``-i debian``: from a published disk image, as an ordinary user. The image is an amphora of our own making."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import tarfile
from pathlib import Path

import pytest
from static_server import serving

IMAGE = "debian-13-genericcloud-amd64.qcow2"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a user")
def test_an_ordinary_user_starts_from_a_disk_image(
    user: pwd.struct_passwd, run_cli_as, built, seed_cache, tmp_path: Path
) -> None:
    home = Path(user.pw_dir)
    seed_cache(home / ".cache/image-create", owner=(user.pw_uid, user.pw_gid))
    os.chown(home / ".cache", user.pw_uid, user.pw_gid)
    shutil.copy(built.qcow2, tmp_path / IMAGE)
    digest = hashlib.sha512((tmp_path / IMAGE).read_bytes()).hexdigest()
    (tmp_path / "SHA512SUMS").write_text(f"{digest}  {IMAGE}\n")
    with serving(tmp_path) as url:
        environment = {"DIB_CLOUD_IMAGES": url, "no_proxy": "127.0.0.1"}
        done = run_cli_as(user, "-i", "debian", "--no-agent", "-t", "tar", "-o", "a", cwd=home, env=environment)
        assert done.returncode == 0, done.stderr
        assert "Copying its files" in done.stderr
        # Again: neither the disk nor packages are touched.
        again = run_cli_as(user, "-i", "debian", "--no-agent", "-t", "tar", "-o", "b", cwd=home, env=environment)
    assert again.returncode == 0, again.stderr
    assert "appliance" not in again.stderr
    assert "install packages" not in again.stderr
    base = json.loads((home / "a.tar.manifest.json").read_text())["base"]["image"]
    assert base["checksum"] == f"sha512:{digest}"
    assert base["signed_by"] is None
    assert list((home / ".cache").rglob(".partial-*")) == []
    with tarfile.open(home / "a.tar") as tar:
        owners = {member.name: (member.uid, member.gid, member.mode) for member in tar}
    assert owners["./etc/shadow"] == (0, 42, 0o640)
    assert owners["./usr/bin/passwd"] == (0, 0, 0o4755)
    assert max(uid for uid, _, _ in owners.values()) < 65536


def test_another_kernel_replaces_the_images(built, run_cli, cache_dir: Path, tmp_path: Path) -> None:
    """With its metapackage, which would bring the next one, and with the initramfs that it left."""
    done = run_cli(
        *("-i", "debian", "--no-agent", "-k", "linux-image-amd64", "-t", "tar"),
        *("-o", tmp_path / "a", "-w", tmp_path, "-c", cache_dir),
        env={"DIB_LOCAL_IMAGE": str(built.tar)},
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "a.tar.manifest.json").read_text())
    kernels = {p["name"] for p in manifest["packages"] if p["name"].startswith("linux-image-")}
    (version,) = {name.removeprefix("linux-image-") for name in kernels - {"linux-image-amd64"}}
    assert not version.endswith("-cloud-amd64")
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {name for name in names if name.startswith(("boot/vmlinuz-", "boot/initrd.img-"))} == {
        f"boot/vmlinuz-{version}",
        f"boot/initrd.img-{version}",
    }
