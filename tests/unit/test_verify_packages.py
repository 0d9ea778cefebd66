"""Package databases: dpkg's and RPM's."""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path

import pytest
from verify_rpm import rpm_database, rpm_header
from verify_tree import amphora, check_tar

from amphora_mkimage.verify.expectations import Expectations
from amphora_mkimage.verify.package_database import DatabaseError, Package, parse_dpkg, parse_rpm
from amphora_mkimage.verify.result import Result

STATUS = """\
Package: haproxy
Status: install ok installed
Architecture: amd64
Version: 3.0.11-1+deb13u5
Description: fast load balancer
 Version: 1 in a continuation line is none
Conffiles:
 /etc/haproxy/haproxy.cfg 1234

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: held
Status: hold ok installed
Architecture: all
Version: 2

Package: half
Status: install ok half-installed
Architecture: amd64
Version: 3

rubbish
"""


def test_dpkg() -> None:
    assert parse_dpkg(STATUS) == [
        Package("haproxy", "3.0.11-1+deb13u5", "amd64"),
        Package("held", "2", "all"),
        Package("half", "3", "amd64", "half-installed"),
    ]


def test_rpm(tmp_path: Path) -> None:
    content = rpm_database(["gpg-pubkey", "haproxy", "keepalived"], tmp_path / "rpmdb.sqlite")
    assert parse_rpm(content, b"") == [
        Package("haproxy", "3.0-1.fc42", "x86_64"),
        Package("keepalived", "3.0-1.fc42", "x86_64"),
    ]


def test_rpm_with_changes_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "rpmdb.sqlite"
    rpm_database(["haproxy"], path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (rpm_header("ipvsadm"),))
    connection.commit()
    content, log = path.read_bytes(), path.with_name("rpmdb.sqlite-wal").read_bytes()
    connection.close()
    assert [package.name for package in parse_rpm(content, log)] == ["haproxy", "ipvsadm"]
    assert [package.name for package in parse_rpm(content, b"")] == ["haproxy"]


def hostile_view(path: Path) -> None:
    connection = sqlite3.connect(path)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS blob FROM c"
    connection.execute(f"CREATE VIEW Packages AS {endless}")
    connection.commit()
    connection.close()


def cut_header(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (struct.pack(">II", 1 << 30, 16),))
    connection.commit()
    connection.close()


def rubbish(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


@pytest.mark.parametrize("make", [hostile_view, cut_header, rubbish])
def test_a_hostile_rpm_database_is_refused(make: object, tmp_path: Path) -> None:
    path = tmp_path / "rpmdb.sqlite"
    assert callable(make)
    make(path)
    with pytest.raises(DatabaseError):
        parse_rpm(path.read_bytes(), b"")


def test_packages_of_an_rpm_system_in_a_tar(tmp_path: Path) -> None:
    tree = amphora()
    tree.remove("/var/lib/dpkg")
    tree.write("/usr/lib/os-release", "ID=rocky\nVERSION_ID=10.0\nPRETTY_NAME='Rocky Linux 10'\n")
    tree.write("/usr/lib/sysimage/rpm/rpmdb.sqlite", rpm_database(["haproxy", "firewalld"], tmp_path / "rpmdb.sqlite"))
    outcomes = check_tar(tree, tmp_path / "image.tar", Expectations(release="10"))
    assert outcomes["packages.distribution"].result is Result.PASS
    assert outcomes["packages.database"].findings[0].detail == "2 packages"
    details = [finding.detail for finding in outcomes["packages.required"].findings]
    assert any("ipvsadm" in detail for detail in details)
    assert any("NetworkManager" in detail for detail in details)
    assert outcomes["packages.unwanted"].result is Result.FAIL
