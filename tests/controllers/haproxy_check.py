"""HAProxy of any release of Debian, asked whether it takes what a release of Octavia writes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_BALANCER = "sample_loadbalancer_id_1"
_LISTENER = "sample_listener_id_1"
_CA = "[ca]\ndefault_ca=x\n[x]\ndatabase={0}/index\ndefault_md=sha256\n"


@dataclass(frozen=True)
class HAProxy:
    """A HAProxy.

    :param argv: how to run it
    """

    argv: Sequence[str]

    @property
    def version(self) -> str:
        """Its version, "3.0.11"."""
        done = subprocess.run([*self.argv, "-v"], capture_output=True, text=True, check=True)
        match = re.search(r"version (\d+\.\d+\.\d+)", done.stdout)
        assert match, done.stdout
        return match[1]

    def refusal(self, configuration: Path) -> str:
        """Return the first alert of ``haproxy -c``, "" where it takes the configuration."""
        # The agent's unit names the amphora's own peer (-L), which is the first of the samples.
        peer = re.search(r"^ *peer (\S+)", configuration.read_text(), re.MULTILINE)
        argv = [*self.argv, "-c", "-f", str(configuration), *(["-L", peer[1]] if peer else [])]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode == 0:
            return ""
        alert = next((line for line in done.stderr.splitlines() if "[ALERT]" in line), f"status {done.returncode}")
        return re.sub(r"^.*\] :? ?", "", alert).strip()


def in_tree(tree: Path) -> HAProxy:
    """Return the HAProxy of a tree of files, run by that tree's own loader and libraries.

    :param tree: the packages haproxy and libc6, and what they depend on, were unpacked there
    """
    # Until trixie libc6 has files in /lib, which is a link to /usr/lib only where dpkg installed it.
    loader = next(found for part in ("lib", "usr/lib") for found in sorted(tree.glob(f"{part}/*/ld-linux*.so.*")))
    libraries = ":".join(str(tree / part / loader.parent.name) for part in ("lib", "usr/lib"))
    return HAProxy([str(loader), "--library-path", libraries, str(tree / "usr/sbin/haproxy")])


def make_certificates(directory: Path) -> None:
    """Make the files that the samples name: a certificate with its list, an authority and its revocation list."""
    place = directory / "certs" / _BALANCER
    place.mkdir(parents=True)
    configuration, client_crl = directory / "ca.cnf", place / "client_ca.crl"
    configuration.write_text(_CA.format(directory))
    (directory / "index").write_text("")
    for name in ("server", "client_ca"):
        words = ["-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
        _openssl("req", "-x509", *words, "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem")
    key, certificate = directory / "client_ca.key", directory / "client_ca.pem"
    words = ["-crldays", "30", "-config", configuration, "-keyfile", key, "-cert", certificate, "-out", client_crl]
    _openssl("ca", "-gencrl", *words)
    both = (directory / "server.pem").read_text() + (directory / "server.key").read_text()
    (place / "server.pem").write_text(both)
    (place / f"{_LISTENER}.pem").write_text(f"{place}/server.pem\n")
    (place / "client_ca.pem").write_text(certificate.read_text())
    of_pool = {"pool.pem": both, "pool_ca.pem": certificate.read_text(), "pool_ca.crl": client_crl.read_text()}
    for name, content in of_pool.items():
        (directory / "certs" / name).write_text(content)


def render(python: Path, octavia: Path, directory: Path, haproxy: str) -> tuple[str, dict[str, Path]]:
    """Render Octavia's samples.

    :param python: has all that octavia needs
    :param octavia: the release that is imported
    :param directory: has what :func:`make_certificates` made
    :param haproxy: version to render for
    :returns: octavia's version, and the configurations by the name of the sample
    """
    samples = _HERE / "samples.json"
    argv = [python, "-W", "ignore", _HERE / "render_samples.py", samples, haproxy, directory]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(octavia)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1], {name: directory / f"{n}.cfg" for n, name in enumerate(names())}


def names() -> list[str]:
    """Return the names of the samples."""
    return list(json.loads((_HERE / "samples.json").read_text()))


def refused(python: Path, octavia: Path, haproxy: HAProxy, directory: Path) -> dict[str, str]:
    """Return what HAProxy says of each sample that it refuses.

    :param directory: has what :func:`make_certificates` made
    """
    version, configurations = render(python, octavia, directory, haproxy.version)
    assert octavia.name.endswith(version), f"{octavia.name} is {version}"
    said = {name: haproxy.refusal(path) for name, path in configurations.items()}
    return {name: alert for name, alert in said.items() if alert}


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
