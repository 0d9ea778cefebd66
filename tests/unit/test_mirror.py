"""Which archive, and where its credentials go; what apt's complaints mean."""

from __future__ import annotations

import email.utils
import hashlib
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from public import PYTHON, public_root
from signing import Signer
from static_server import serving

from amphora_mkimage.bases import BASES, bootstrap, mirror
from amphora_mkimage.bases.archive import Archive, Deb
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.plain_paths import is_plain

needs_mmdebstrap = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")

DEBIAN, UBUNTU = BASES["debian-minimal"], BASES["ubuntu-minimal"]


@pytest.mark.parametrize(
    ("base", "url", "security"),
    [
        (DEBIAN, "http://mirror.example/debian", "http://mirror.example/debian-security"),
        (DEBIAN, "https://mirror.example/pub/debian", "https://mirror.example/pub/debian-security"),
        (DEBIAN, "http://mirror.example/my-archive", "http://mirror.example/my-archive"),
        (DEBIAN, "http://mirror.example", "http://mirror.example"),
        (UBUNTU, "http://mirror.example/ubuntu", "http://mirror.example/ubuntu"),
        (UBUNTU, "http://mirror.example/debian", "http://mirror.example/debian"),
    ],
)
def test_where_the_security_suites_are(base: object, url: str, security: str) -> None:
    chosen = mirror.choose(base, "trixie" if base is DEBIAN else "noble", url)  # type: ignore[arg-type]
    assert (chosen.main, chosen.security) == (url, security)
    assert chosen.origin == "BASE_OS_MIRROR"


@pytest.mark.parametrize(
    ("url", "bare", "login"),
    [
        (
            "http://u:p@mirror.example/debian",
            "http://mirror.example/debian",
            "http://mirror.example login u password p",
        ),
        (
            "https://u:p%40%2f@mirror.example:8443/debian",
            "https://mirror.example:8443/debian",
            "https://mirror.example:8443 login u password p@/",
        ),
        ("http://u@mirror.example/debian", "http://mirror.example/debian", "http://mirror.example login u password "),
    ],
)
def test_credentials_leave_the_url(url: str, bare: str, login: str) -> None:
    chosen = mirror.choose(DEBIAN, "trixie", url)
    assert chosen.main == bare
    assert chosen.logins == (f"machine {login}\n",)
    assert "@" not in chosen.sources(DEBIAN, "trixie", DEBIAN.keyring)
    assert "login" not in repr(chosen)


def test_debian_sources_have_updates_and_security() -> None:
    chosen = mirror.choose(DEBIAN, "trixie", "http://mirror.example/debian")
    assert chosen.sources(DEBIAN, "trixie", "/keyring.gpg").splitlines() == [
        "deb [signed-by=/keyring.gpg] http://mirror.example/debian trixie main",
        "deb [signed-by=/keyring.gpg] http://mirror.example/debian trixie-updates main",
        "deb [signed-by=/keyring.gpg] http://mirror.example/debian-security trixie-security main",
    ]


def test_network_settings_switch_no_check_off(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    text = mirror.apt_network_settings({"SSL_CERT_FILE": str(bundle)})
    assert text.splitlines()[-1] == f'Acquire::https::CaInfo "{bundle}";'
    assert "Verify" not in text
    assert "CaInfo" not in mirror.apt_network_settings({"SSL_CERT_FILE": '/x"; APT::Get::AllowUnauthenticated "1'})


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("GPG error: ... NO_PUBKEY 0123", "DIB_APT_KEYRING"),
        ("The repository 'http://x trixie InRelease' is not signed.", "DIB_APT_KEYRING"),
        ("The following signatures were invalid: EXPKEYSIG", "DIB_APT_KEYRING"),
        ("E: Unable to locate package linux-image-foo", "-k"),
        ("E: Package 'x' has no installation candidate", "-k"),
        ("Hash Sum mismatch", "damaged"),
        ("File has unexpected size (1 != 2)", "damaged"),
        ("E: Write error - write (28: No space left on device)", "space"),
        ("Could not connect to 127.0.0.1:9", "proxy"),
    ],
)
def test_remedies(output: str, remedy: str) -> None:
    assert remedy in Archive._remedy(output)


def test_apt_is_private_and_its_secrets_are_the_owners(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "apt", "amd64", "deb x\n", 'A "b";\n', ["machine x login y password z\n"], Console())
    for name in ("auth.conf", "apt.conf"):
        assert (archive.directory / name).stat().st_mode & 0o777 == 0o600
    text = (archive.directory / "apt.conf").read_text()
    assert text.endswith('A "b";\n')
    for check in ("APT::Get::AllowUnauthenticated", "Acquire::AllowInsecureRepositories"):
        assert f'{check} "false";' in text
    assert "password" not in text


def test_the_key_of_a_base_changes_with_everything_that_went_in() -> None:
    deb = Deb("a", "1:2", "amd64", "0" * 64, 1, 1)
    assert deb.file_name == "a_1%3a2_amd64.deb"
    base = bootstrap.key([deb], "amd64", "trixie", "deb x\n")
    others = {
        bootstrap.key([], "amd64", "trixie", "deb x\n"),
        bootstrap.key([Deb("a", "1:2", "amd64", "1" * 64, 1, 1)], "amd64", "trixie", "deb x\n"),
        bootstrap.key([deb], "arm64", "trixie", "deb x\n"),
        bootstrap.key([deb], "amd64", "forky", "deb x\n"),
        bootstrap.key([deb], "amd64", "trixie", "deb y\n"),
    }
    assert len(others) == 5
    assert base not in others
    assert base == bootstrap.key([deb], "amd64", "trixie", "deb x\n")


# --- awkward paths -------------------------------------------------------------------------------------------------

AWKWARD = """it's a "job"; $(touch evil) 100%41 größe, [x]?@@1&"""


@needs_mmdebstrap
def test_a_checkout_in_an_awkward_path(tmp_path: Path) -> None:
    """The hook that mmdebstrap runs is a line of shell; a Jenkins job's workspace has the job's name in it."""
    program = tmp_path / AWKWARD
    shutil.copytree(public_root(), program)
    code = "from amphora_mkimage.bases import BASES, mirror\nprint(mirror.choose(BASES['ubuntu'], 'noble', '').main)"
    done = subprocess.run(
        [PYTHON, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(program), "LC_ALL": "C"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("http"), done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [AWKWARD]


def _archive(place: Path, signer: Signer) -> Path:
    """An archive of one suite without packages."""
    packages = place / "dists/trixie/main/binary-amd64/Packages"
    packages.parent.mkdir(parents=True)
    packages.write_text("")
    digest = hashlib.sha256(b"").hexdigest()
    date = email.utils.formatdate(usegmt=True).replace("GMT", "UTC")
    text = f"Suite: trixie\nCodename: trixie\nDate: {date}\nArchitectures: amd64\nComponents: main\n"
    text += f"SHA256:\n {digest} 0 main/binary-amd64/Packages\n"
    (place / "dists/trixie/InRelease").write_bytes(signer.clear(text.encode()))
    return place


@pytest.mark.parametrize("suffix", ["gpg", "asc"])
def test_a_keyring_in_an_awkward_path_counts_as_in_any_other(suffix: str, tmp_path: Path) -> None:
    """The real apt, and an archive that is signed by a key of the test's own: that key, and no other, will do."""
    ours, theirs = Signer(tmp_path, "ours"), Signer(tmp_path, "theirs")
    directory = tmp_path / AWKWARD
    directory.mkdir()
    found = {}
    with serving(_archive(tmp_path / "archive", ours)) as url:
        archive = mirror.Mirror(url, url, "of the test")
        for signer in (ours, theirs):
            keyring = directory / f"{signer.home.name}, [a] key.{suffix}"
            keyring.write_bytes(signer.public(armour=suffix == "asc"))
            suite = archive.sources(BASES["debian-minimal"], "trixie", str(keyring)).splitlines(keepends=True)[0]
            state = tmp_path / f"state-{signer.home.name}"
            console = Console(io.StringIO())
            made = Archive(state, "amd64", suite, "", (), console, keyring=None if is_plain(keyring) else keyring)
            try:
                made.update()
                found[signer.home.name] = "read"
            except MkimageError as error:
                found[signer.home.name] = error.remedy
            signer.close()
    assert found["ours"] == "read"
    assert "not signed by the expected key" in found["theirs"]
