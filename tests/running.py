"""What a test asks of an image that is booted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def check(run_cli: Any, image: Path, *options: str) -> None:
    """Boot an image by ``amphora-mkimage boot``: nothing failed, HAProxy answers, the config drive was read."""
    # A machine that is shared with other work needs more than the default for a boot and all steps of the controller.
    done = run_cli("boot", "--json", "--timeout", "1800", *options, image, timeout=2000)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "running"
    assert result["failed_units"] == []
    assert result["agent"] or result["haproxy"]["http_status"] == 200
    assert "DataSourceConfigDrive" in result["cloud_init"]["datasource"]
