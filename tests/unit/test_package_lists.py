"""Which packages and stages a request wants."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from make_request import make

from amphora_mkimage import cli, packages, process, stages
from amphora_mkimage.bases import BASES, mirror
from amphora_mkimage.stages import sysctl

MUST = {"haproxy", "keepalived", "ipvsadm", "cloud-init", "python3", "ca-certificates"}


@pytest.mark.parametrize("base", BASES)
def test_package_lists(base: str) -> None:
    wanted = packages.wanted(make("-i", base))
    assert set(wanted) >= MUST | {"openssh-server", "nftables"}
    assert wanted == sorted(set(wanted))
    without = packages.wanted(make("-i", base, "-n", DIB_OCTAVIA_AMP_USE_NFTABLES="0"))
    assert "openssh-server" not in without
    assert "nftables" not in without
    assert {"iptables", "iptables-nft"} & set(without)
    assert "tuned" in packages.wanted(make("-i", base, "-m"))
    assert "tuned" not in wanted
    other = packages.wanted(make("-i", base, "-k", "linux-image-other"))
    assert "linux-image-other" in other
    assert make("-i", base).kernel_package not in other


@pytest.mark.parametrize("base", BASES)
def test_every_group_has_a_reason(base: str) -> None:
    file = Path(packages.__file__).parent / "package_lists" / f"{BASES[base].distribution}.toml"
    for role, group in tomllib.loads(file.read_text()).items():
        if role == "extends":
            continue
        assert group["reason"], role
        assert group.get("packages") or group.get("remove"), role
        assert set(group) - {"when", "not_in"} in ({"reason", "packages"}, {"reason", "remove"}), role


@pytest.mark.parametrize("base", BASES)
def test_what_is_wanted_is_not_removed(base: str) -> None:
    for switches in ((), ("-n", "-m")):
        wanted = make("-i", base, *switches)
        assert not set(packages.unwanted(wanted)) & set(packages.wanted(wanted))
        assert ("openssh-server" in packages.unwanted(wanted)) == (not wanted.ssh)


def test_old_names_of_time_zones() -> None:
    """They are a package of their own since trixie and noble; bookworm has no package of that name."""
    assert "tzdata-legacy" in packages.wanted(make("-d", "trixie"))
    assert "tzdata-legacy" in packages.wanted(make("-i", "ubuntu"))
    assert "tzdata-legacy" not in packages.wanted(make("-d", "bookworm"))


def test_unknown_condition_is_a_defect() -> None:
    with pytest.raises(ValueError, match="unknown condition"):
        packages._applies("no_such_setting", make())


def test_ubuntu_minimal() -> None:
    made = make("-i", "ubuntu-minimal", BASE_OS_MIRROR="http://mirror.example/ubuntu")
    archive = mirror.choose(made.base, made.release, made.mirror)
    assert made.release == "noble"
    assert made.kernel_package == "linux-image-virtual"
    assert archive.sources(made.base, made.release, made.keyring).splitlines() == [
        "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] http://mirror.example/ubuntu "
        f"{suite} main universe"
        for suite in ("noble", "noble-updates", "noble-security")
    ]
    assert "netplan.io" in packages.wanted(made)
    assert "ifupdown" not in packages.wanted(made)


def test_stages_are_a_table_of_contents() -> None:
    names = [stages.name(stage) for stage in stages.ORDER]
    assert len(names) == len(set(names))
    assert names[-1] == "clean"
    files = {path.stem for path in Path(stages.__file__).parent.glob("*.py")}
    assert files - {"__init__", "family", "install"} == set(names)  # no module lies around without being run
    for stage in stages.ORDER:
        assert stage.__doc__
        assert stages.title(stage)
        assert stage.applies.__doc__
        assert stage.run.__doc__
        assert isinstance(stage.applies(make()), bool)


def test_stages_follow_the_request() -> None:
    names = {stages.name(stage) for stage in stages.wanted(make())}
    assert "ssh" in names
    assert "cpu_pinning" not in names
    names = {stages.name(stage) for stage in stages.wanted(make("-n", "-m"))}
    assert "ssh" not in names
    assert "cpu_pinning" in names


def test_sysctl_values_have_no_quotes() -> None:
    values = sysctl.settings()
    assert len(values) > 15
    for key, value in values.items():
        assert all(part for part in key.split("."))
        assert not set("\"'\n=") & set(key + value)
        assert all(part.isdigit() for part in value.split())


def test_secrets_in_variables_reach_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMP_ROOTPW", "Hunter2")
    monkeypatch.setenv("BASE_OS_MIRROR", "http://user:Hunter2@mirror.example/debian")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("https_proxy", raising=False)
    cli._tidy_environment()
    assert "Hunter2" not in str(process.environment())
    assert process.environment()["https_proxy"] == "http://proxy.example:3128"  # apt reads small letters only
    monkeypatch.delenv("https_proxy")
