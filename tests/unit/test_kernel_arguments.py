"""Kernel arguments of the user's: which are accepted, and that a shell reads the same in the files of both families."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_request import make

from amphora_mkimage import kernel_arguments
from amphora_mkimage.console import Console
from amphora_mkimage.errors import BadValueError
from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.stages import boot, cpu_pinning, grub2
from amphora_mkimage.stages import kernel_arguments as stage

BAD = [
    *("", " ", "a b", "a\nb", "a\n", 'a="b"', "a='b'", "$(id)", "`id`", "a;b", "a&b", "a|b", "a>b", "a\\b", "é"),
    *("-a", "--", "=x", "a#b", "a*", "a{b}", "a\tb", "a\0b"),
    *(
        "root=/dev/vda",
        "ro",
        "init=/bin/sh",
        "rdinit=/x",
        "systemd.unit=rescue.target",
        "single",
        "rescue",
        "emergency",
    ),
    *("rd.break", "cloud-init=disabled", "ds=nocloud", "ci.ds=None", "network-config=disabled", "fips=1"),
]
GOOD = [
    *("mitigations=off", "net.ifnames=0", "console=ttyS1,115200n8", "hugepages=64", "isolcpus=1-N", "quiet"),
    *("crashkernel=1G-4G:192M,4G-:256M", "modprobe.blacklist=a,b", "intel_iommu=on", "audit=1", "rootdelay=5"),
    *("systemd.log_level=debug", "ip=10.0.0.2::10.0.0.1:255.255.255.0", "name=50%", "a=b=c", "module.key=+x"),
]


@pytest.mark.parametrize("argument", BAD)
def test_bad(argument: str) -> None:
    with pytest.raises(BadValueError, match=r"^--kernel-arg: ") as caught:
        make(f"--kernel-arg={argument}")
    assert len(caught.value.what.splitlines()) == 1
    if argument.split() == [argument]:
        with pytest.raises(BadValueError, match=r"^DIB_BOOTLOADER_DEFAULT_CMDLINE: "):
            make(DIB_BOOTLOADER_DEFAULT_CMDLINE=f"quiet {argument}")


@pytest.mark.parametrize("argument", GOOD)
def test_good(argument: str) -> None:
    assert make("--kernel-arg", argument).kernel_args == (argument,)


def test_in_order_and_in_the_plan() -> None:
    made = make("--kernel-arg=b=2", "--kernel-arg", "a=1", DIB_BOOTLOADER_DEFAULT_CMDLINE="nofb  quiet")
    assert made.kernel_args == ("b=2", "a=1")
    assert made.summary["kernel_args"] == ["b=2", "a=1"]
    assert made.summary["default_cmdline"] == ["nofb", "quiet"]
    assert make().summary["default_cmdline"] == ["nofb", "nomodeset", "gfxpayload=text"]
    assert not stage.applies(make())


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NamespaceGuest]:
    made = NamespaceGuest(tmp_path, Console())
    monkeypatch.setattr(made, "chown", lambda owner, group, path: None)  # an ordinary user runs this, too
    monkeypatch.setattr(made, "command", lambda arguments: "")  # there are no programs
    entries = tmp_path / "boot/loader/entries"
    entries.mkdir(parents=True)
    (entries / "x.conf").write_text("linux /vmlinuz-6\noptions root=UUID=1 ro $tuned_params\n")
    yield made
    made.close()


def sourced(tmp_path: Path) -> str:
    """What update-grub finds: /etc/default/grub and then the directory, by a shell."""
    files = [tmp_path / "etc/default/grub", *sorted((tmp_path / "etc/default/grub.d").glob("*.cfg"))]
    script = "".join(f'. "{file}"\n' for file in files if file.exists()) + 'printf "%s" "$GRUB_CMDLINE_LINUX"'
    return subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("argv", [("-m",), ()])
@pytest.mark.parametrize("instead", ["", "quiet nofb"])
@pytest.mark.parametrize("base", ["debian-minimal", "fedora"])
def test_what_grub_reads(guest: NamespaceGuest, tmp_path: Path, base: str, instead: str, argv: tuple[str, ...]) -> None:
    request = make("-i", base, *argv, "--kernel-arg=a=50%", "--kernel-arg=b", DIB_BOOTLOADER_DEFAULT_CMDLINE=instead)
    for other in (boot, grub2, cpu_pinning):
        if other.applies(request):
            other.run(guest, request)
    before = sourced(tmp_path).split()
    stage.run(guest, request)
    after = sourced(tmp_path).split()
    assert {"console=tty0", "console=ttyS0,115200", "no_timer_check"} <= {*after}
    assert ("isolcpus=1-N" in after) == bool(argv)
    assert after[-2:] == ["a=50%", "b"]
    expected = [word for word in before if not instead or word not in kernel_arguments.DEFAULTS]
    assert after == [*expected, *instead.split(), "a=50%", "b"]
    if base == "fedora":
        line = (tmp_path / "etc/kernel/cmdline").read_text()
        assert line == f"root=LABEL=cloudimg-rootfs ro {' '.join(after)}\n"
        assert f"\noptions {line}" in (tmp_path / "boot/loader/entries/x.conf").read_text()
