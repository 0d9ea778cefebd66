"""A card of the config drive that is not there, with the drive as Nova attaches it; tests/network has the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import absent_card
import pytest


@pytest.mark.slow
def test_the_management_card_comes_up_and_the_console_names_the_other(built_image: Path) -> None:
    argv = [sys.executable, absent_card.__file__, "boot", "--json", "--console", "--timeout", "1800", built_image]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=2000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the config drive has a card {absent_card.ABSENT} (hostdev_physical)" in done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["failed_units"], result["problems"]) == ("running", [], [])
    assert result["cloud_init"] == {
        "datasource": "DataSourceConfigDrive [net,ver=2][source=/dev/sr0]", "errors": [], "runcmd": True,
    }  # fmt: skip
