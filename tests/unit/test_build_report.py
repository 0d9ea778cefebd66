"""What --json prints: the plan, and a build that failed. One that succeeds is in tests/build/test_build.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amphora_mkimage import cli, plan
from amphora_mkimage.errors import ExitStatus, MkimageError


def places(tmp_path: Path) -> list[str]:
    return ["-c", str(tmp_path / "cache"), "-w", str(tmp_path), "-o", str(tmp_path / "a")]


def test_a_plan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["-i", "debian", "--insecure", "-m", "-t", "qcow2,tar", "--guest", "namespace", "--dry-run", "--json", "-e"]
    assert cli.main([*argv, *places(tmp_path)]) == ExitStatus.OK
    document = json.loads(capfd.readouterr().out)
    assert document["base"]["name"] == "debian"
    assert document["outputs"] == {"qcow2": f"{tmp_path}/a.qcow2", "tar": f"{tmp_path}/a.tar"}
    assert document["settings"]["cpu_pinning"] is True
    assert document["settings"]["types"] == ["qcow2", "tar"]
    assert "haproxy" in document["packages"]["wanted"]["load-balancer"]
    assert any(stage["name"] == "haproxy" for stage in document["stages"])
    assert document["guest"]["kind"] == "namespace"
    assert document["agent"]["source"] == "released"
    assert [text for text in document["warnings"] if text.startswith("-e is unused")]


def test_the_text_of_a_plan_is_not_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["-i", "debian", "-m", "-t", "qcow2,tar", "--guest", "namespace", "--dry-run"]
    assert cli.main([*argv, *places(tmp_path)]) == ExitStatus.OK
    text = capfd.readouterr().out
    assert "types: qcow2, tar\n" in text
    assert "cpu_pinning: yes\n" in text
    assert "fips: no\n" in text
    assert not any(mark in text for mark in ("['", "True", "False", "None"))


@pytest.mark.parametrize(
    ("error", "status"),
    [(MkimageError("what", "remedy", tail=("line",)), 1), (KeyboardInterrupt(), 130), (ZeroDivisionError("x"), 1)],
)
def test_a_failure(
    error: BaseException,
    status: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(plan, "make", fail)
    assert cli.main(["-i", "debian", "-e", "--json", *places(tmp_path)]) == status
    document = json.loads(capfd.readouterr().out)
    assert set(document) == {"status", "images", "warnings", "error"}
    assert document["status"] == status
    assert document["images"] == []
    assert [text for text in document["warnings"] if text.startswith("-e is unused")]
    assert document["error"]["what"]
    if isinstance(error, MkimageError):
        assert document["error"]["remedy"] == "remedy"
        assert document["error"]["tail"] == ["line"]
        assert Path(document["error"]["log"]).is_file()


def test_a_bad_value(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-i", "debain", "--json"]) == ExitStatus.BAD_VALUE
    document = json.loads(capfd.readouterr().out)
    assert document["status"] == 3
    assert "debian" in document["error"]["remedy"]
