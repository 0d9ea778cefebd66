"""Which processors run which releases; /proc/cpuinfo as kernels write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from amphora_mkimage.bases import BASES
from amphora_mkimage.errors import ExitStatus, HostError
from amphora_mkimage.guest import processor

HASWELL = "fpu vme sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 fma"
NEHALEM = "fpu vme sse4_1 sse4_2 popcnt lahf_lm"


def cpuinfo(directory: Path, flags: str) -> Path:
    file = directory / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: x\nflags\t\t: {flags}\nbugs\t\t: avx2\n\nprocessor\t: 1\n")
    return file


def test_an_old_processor_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(
        HostError, match=r"^centos 10-stream needs .* x86-64-v3, and this one has no avx, avx2,"
    ) as caught:
        processor.require("x86-64-v3", "centos 10-stream", cpuinfo(tmp_path, NEHALEM))
    assert caught.value.status is ExitStatus.HOST
    assert caught.value.remedy


@pytest.mark.parametrize(("level", "flags"), [("x86-64-v3", HASWELL), ("", NEHALEM)])
def test_what_runs(level: str, flags: str, tmp_path: Path) -> None:
    processor.require(level, "x", cpuinfo(tmp_path, flags))


def test_another_architecture_has_no_flags(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    processor.require("x86-64-v3", "x", tmp_path / "cpuinfo")


def test_release_10_of_red_hats_family_needs_it() -> None:
    found = {
        (base.name, name) for base in BASES.values() for name, release in base.releases.items() if release.processor
    }
    assert found == {("centos", "10-stream"), ("rocky", "10"), ("rhel", "10")}
    assert {release.processor for base in BASES.values() for release in base.releases.values()} <= {
        "",
        *processor.LEVELS,
    }
