"""What programs say of clocks and certificates is recognised: each program for real, on loopback."""

from __future__ import annotations

import io
import subprocess
import tomllib
from pathlib import Path

import pytest
from fault_server import running
from package_index import isolate_pip

from amphora_mkimage import proxies, trouble
from amphora_mkimage.bases.archive import Archive
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import Policy
from amphora_mkimage.trouble import Kind

CA = """\
[ca]
default_ca = it
[it]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
copy_extensions = copy
x509_extensions = own
[own]
basicConstraints = critical,CA:TRUE
[any]
commonName = supplied
"""


def certificate(place: Path, start: str, end: str) -> Path:
    """A certificate for loopback that is its own CA, with dates that `openssl req` does not make."""
    (place / "ca.cnf").write_text(CA)
    (place / "index").touch()
    (place / "serial").write_text("01\n")
    argv = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key"]
    argv += ["-out", "csr", "-subj", "/CN=throw-away", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(argv, cwd=place, check=True, capture_output=True)
    argv = ["openssl", "ca", "-batch", "-selfsign", "-config", "ca.cnf", "-keyfile", "key", "-in", "csr"]
    argv += ["-out", "crt", "-startdate", start, "-enddate", end, "-notext"]
    subprocess.run(argv, cwd=place, check=True, capture_output=True)
    (place / "pem").write_text((place / "key").read_text() + (place / "crt").read_text())
    return place / "pem"


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("20200101000000Z", "20210101000000Z", "the server's certificate has expired by this host's clock (20"),
        ("20900101000000Z", "20910101000000Z", "the certificate's time has not come by this host's clock (20"),
    ],
)
def test_certificates_and_clocks(
    start: str, end: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate_pip(monkeypatch)
    for name in proxies.NAMES:
        monkeypatch.delenv(name, raising=False)
    with running(certificate(tmp_path, start, end)) as server:
        monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "crt"))
        with pytest.raises(MkimageError) as raised:
            fetch_all(
                [Transfer(Location.parse(f"{server.url}/f"), Memory(), 9, Policy(attempts=1))], Console(io.StringIO())
            )
        assert words in raised.value.remedy
        network = f'Acquire::https::CaInfo "{tmp_path}/crt";\nAcquire::Retries "0";\n'
        archive = Archive(
            tmp_path / "apt", "amd64", f"deb {server.url}/debian trixie main\n", network, [], Console(io.StringIO())
        )
        with pytest.raises(MkimageError) as raised:
            archive.update()
        assert words in raised.value.remedy


def test_a_client_certificate_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where only root may read the key; a file that is not there has the same words."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running(certificate(tmp_path, "20200101000000Z", "20900101000000Z")) as server:
        settings = {"CaInfo": tmp_path / "crt", "SslCert": tmp_path / "crt", "SslKey": tmp_path / "none"}
        network = "".join(f'Acquire::https::{name} "{path}";\n' for name, path in settings.items())
        source = f"deb {server.url}/debian trixie main\n"
        archive = Archive(tmp_path / "apt", "amd64", source, network, [], Console(io.StringIO()))
        with pytest.raises(MkimageError) as raised:
            archive.update()
    assert "client certificate" in raised.value.remedy and "BASE_OS_MIRROR" in raised.value.remedy


CASES = tomllib.loads(Path(__file__).with_name("trouble.toml").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["text"][:40] for case in CASES])
def test_words(case: dict[str, str]) -> None:
    found = trouble.recognise(case["text"])
    assert (found.kind.name if found else "") == case.get("kind", "")


@pytest.mark.parametrize("kind", Kind)
def test_each_remedy_names_what_to_change(kind: Kind) -> None:
    text = trouble.Trouble(kind, "1d").remedy("DIB_CLOUD_IMAGES")
    assert "check the network" not in text
    assert any(
        word in text
        for word in ("DIB_CLOUD_IMAGES", "_proxy", "set it", "set the clock", "CURL_CA_BUNDLE", "-w", "again", "ahead")
    )
