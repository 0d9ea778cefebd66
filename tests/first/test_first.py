"""One image from beginning to end: built by the command line, its tar verified, its disk booted and driven.

This is what `make test` runs after the unit tests; all that varies these three stands elsewhere under tests/.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

#: What the controller of `boot` asks for, in order (amphora_mkimage/boot/controller.py).
STEPS = [
    *("info", "details", "refuse strangers", "plug VIP", "upload configuration"),
    *("start", "traffic", "reload", "heartbeat", "delete"),
]


def test_the_build_is_recorded(built) -> None:
    manifest = json.loads(built.manifest.read_text())
    assert manifest["image"]["sha256"] == hashlib.sha256(built.qcow2.read_bytes()).hexdigest()
    assert f"built {built.qcow2}" in built.stderr
    assert "the flavor's disk: at least 5 GiB" in built.stderr


def test_verify_calls_its_tar_a_complete_amphora(built, run_cli) -> None:
    done = run_cli("verify", "--json", built.tar)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert {check["result"] for check in checks} == {"pass", "not-applicable"}
    assert sum(check["result"] == "pass" for check in checks) > len(checks) / 2


@pytest.fixture(scope="module")
def booted(built, run_cli) -> dict[str, Any]:
    before = hashlib.sha256(built.qcow2.read_bytes()).hexdigest()
    # Without KVM, and with other work on the machine, a boot has taken ten minutes.
    done = run_cli("boot", "--json", "--timeout", "1800", built.qcow2, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashlib.sha256(built.qcow2.read_bytes()).hexdigest() == before
    return json.loads(done.stdout)


def test_its_disk_boots(booted: dict[str, Any]) -> None:
    assert booted["problems"] == []
    assert booted["state"] == "running"
    assert booted["failed_units"] == []
    assert "DataSourceConfigDrive" in booted["cloud_init"]["datasource"]


def test_it_does_what_a_controller_asks(booted: dict[str, Any]) -> None:
    agent = booted["agent"]
    assert [step["name"] for step in agent["steps"] if step["ok"]] == STEPS
    assert agent["failed_units"] == []
