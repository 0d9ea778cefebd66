"""Logs are bounded: the real logrotate, on the configurations of both families as the stage leaves them."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_request import make

from amphora_mkimage.console import Console
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.stages import logging

needs_logrotate = pytest.mark.skipif(shutil.which("logrotate") is None, reason="needs logrotate")

#: The packages' own files, comments left out: logrotate 3.22 and haproxy 3.0 of Debian 13; those of EL10 and Fedora.
DEBIAN = {
    "etc/logrotate.conf": "weekly\nrotate 4\ncreate\ninclude /etc/logrotate.d\n",
    "etc/logrotate.d/haproxy": "/var/log/haproxy.log {\n daily\n rotate 7\n missingok\n notifempty\n compress\n"
    " delaycompress\n postrotate\n  true\n endscript\n}\n",
    "etc/logrotate.d/rsyslog": "/var/log/syslog\n{\n rotate 4\n weekly\n missingok\n notifempty\n compress\n"
    " delaycompress\n sharedscripts\n}\n",
}
REDHAT = {
    "etc/logrotate.conf": "weekly\nrotate 4\ncreate\ndateext\ninclude /etc/logrotate.d\n",
    "etc/logrotate.d/haproxy": "/var/log/haproxy.log {\n daily\n rotate 10\n missingok\n notifempty\n compress\n"
    " sharedscripts\n}\n",
    "etc/logrotate.d/rsyslog": "/var/log/messages\n/var/log/secure\n{\n missingok\n sharedscripts\n}\n",
}
MIB = 1 << 20


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NamespaceGuest]:
    (tmp_path / "tree/etc").mkdir(parents=True)
    made = NamespaceGuest(tmp_path / "tree", Console())
    monkeypatch.setattr(made, "chown", lambda owner, group, path: None)  # an ordinary user runs this, too
    yield made
    made.close()


def configured(guest: NamespaceGuest, files: dict[str, str], *, twice: bool = False) -> Path:
    """Run the stage; the configuration with the tree's paths in it."""
    for name, text in files.items():
        (guest.root / name).parent.mkdir(parents=True, exist_ok=True)
        (guest.root / name).write_text(text)
    for _ in range(1 + twice):
        logging.run(guest, make())
    (guest.root / "var/log").mkdir(parents=True)
    for path in (guest.root / "etc").rglob("logrotate*"):
        for file in path.iterdir() if path.is_dir() else [path]:
            if file.is_file():
                file.write_text(re.sub("(?<!\\S)/(?=etc/|var/)", f"{guest.root}/", file.read_text()))
                file.chmod(0o644)
    return guest.root / "etc/logrotate.conf"


def rotate(configuration: Path, *options: str) -> str:
    """Run logrotate, which last did so two hours ago."""
    state = configuration.parent / "state"
    logs = configuration.parents[1] / "var/log"
    ago = time.strftime("%Y-%-m-%-d-%-H:%M:%S", time.localtime(time.time() - 7200))
    state.write_text("logrotate state -- version 2\n" + "".join(f'"{log}" {ago}\n' for log in logs.glob("*")))
    state.chmod(0o600)
    argv = [shutil.which("logrotate") or "", *options, "--state", str(state), str(configuration)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def write(log: Path, size: int) -> None:
    """Write a sparse log."""
    with log.open("wb") as file:
        file.truncate(size)


@needs_logrotate
@pytest.mark.parametrize(
    ("files", "name"), [(DEBIAN, "haproxy.log"), (DEBIAN, "syslog"), (REDHAT, "haproxy.log"), (REDHAT, "messages")]
)
def test_a_large_log_is_rotated_at_once_and_a_small_one_is_not(
    files: dict[str, str], name: str, guest: NamespaceGuest
) -> None:
    configuration = configured(guest, files)
    log = guest.root / "var/log" / name
    write(log, 3 << 30)
    assert "log needs rotating" in rotate(configuration, "--debug")
    write(log, 49 * MIB)
    assert "log does not need rotating" in rotate(configuration, "--debug")


@needs_logrotate
@pytest.mark.parametrize("files", [DEBIAN, REDHAT], ids=["debian", "redhat"])
def test_it_is_rotated_several_times_a_day(files: dict[str, str], guest: NamespaceGuest) -> None:
    """With a date for a name alone, the second rotation finds its name taken and does nothing."""
    configuration = configured(guest, files, twice=True)
    directory = guest.root / "var/log"
    for number in (1, 2):
        write(directory / "haproxy.log", 51 * MIB)
        rotate(configuration)
        left = directory / "haproxy.log"
        assert not left.exists() or left.stat().st_size == 0
        kept = list(directory.glob("haproxy.log?*"))
        assert len(kept) == number
        assert sum(path.suffix != ".gz" for path in kept) <= 1  # delaycompress keeps the youngest as it is
        time.sleep(1.01)  # names have seconds


def test_the_timer_looks_often(guest: NamespaceGuest) -> None:
    configured(guest, DEBIAN)
    timer = (guest.root / "etc/systemd/system/logrotate.timer.d/50-amphora.conf").read_text()
    assert "OnCalendar=\nOnCalendar=*:0/5\n" in timer  # the distribution's is dropped (systemd.timer(5))


def test_an_image_without_a_configuration_gets_one(guest: NamespaceGuest) -> None:
    text = configured(guest, {}).read_text()
    assert "maxsize 50M" in text
    assert "include" in text
