"""What is checked before any work; through the real command line where the exit status matters."""

from __future__ import annotations

import os
import pickle
import subprocess
import tempfile
from pathlib import Path

import pytest
from make_request import make
from public import PYTHON, public_root

from amphora_mkimage import cli, packages, plan, settings
from amphora_mkimage.architecture import ARCHITECTURES
from amphora_mkimage.bases import BASES, mirror
from amphora_mkimage.errors import BadValueError, ExitStatus
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.guest.choose import Choice


def status_and_text(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str, **environ: str
) -> tuple[int, str]:
    """Run main() on arguments that must be refused before anything is done."""
    for setting in settings.SETTINGS:
        for variable in setting.variables:
            monkeypatch.delenv(variable.name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    base = () if "-i" in argv or "AMP_BASEOS" in environ else ("-i", "debian-minimal")
    status = cli.main([*base, *argv])
    captured = capfd.readouterr()
    assert captured.out == ""
    return status, captured.err


BAD = [
    (["-a", "sparc"], {}, "-a"),
    (["-i", "ubuntu-minimal", "-a", "i386"], {}, "-a"),
    (["-a", "i386", "-d", "trixie"], {}, "-d"),
    ([], {"AMP_ARCH": "i386", "DIB_RELEASE": "trixie"}, "DIB_RELEASE"),
    (["-d", "forky"], {}, "isc-dhcp-client"),
    (["-i", "debian", "-d", "forky"], {}, "isc-dhcp-client"),
    (["-b", "nginx"], {}, "-b"),
    (["-i", "windows"], {}, "-i"),
    (["-i", "rhel"], {}, "-i"),
    (["-i", "rhel"], {"DIB_LOCAL_IMAGE": __file__, "BASE_OS_MIRROR": "http://mirror.example/rhel"}, "BASE_OS_MIRROR"),
    (["-i", "centos", "-d", "9-stream"], {}, "needs Python 3.11"),
    (["-i", "fedora", "-a", "arm64"], {}, "-a"),
    (["-i", "fedora", "-s", "2"], {}, "-s"),
    (["-i", "debian", "-a", "i386"], {}, "-a"),  # nobody publishes an image of it
    ([], {"DIB_LOCAL_IMAGE": "/nonexistent/image"}, "DIB_LOCAL_IMAGE"),
    ([], {"DIB_LOCAL_IMAGE": "ftp://mirror.example/image"}, "DIB_LOCAL_IMAGE"),
    ([], {"DIB_CLOUD_IMAGES": "http://["}, "DIB_CLOUD_IMAGES"),
    ([], {"DIB_CLOUD_IMAGES_KEYRING": "/nonexistent/key"}, "DIB_CLOUD_IMAGES_KEYRING"),
    (["-t", "vmdk"], {}, "-t"),
    (["-t", "qcow2,vmdk"], {}, "-t"),
    (["-t", ""], {}, "-t"),
    (["-d", "sarge"], {}, "-d"),
    (["-d", "buster"], {}, "-d"),
    (["-i", "ubuntu-minimal", "-d", "jammy"], {}, "-d"),
    ([], {"DIB_RELEASE": "sarge"}, "DIB_RELEASE"),
    (["-s", "0"], {}, "-s"),
    (["-s", "x"], {}, "-s"),
    (["-s", "1.5"], {}, "-s"),
    (["-s", "-1"], {}, "-s"),
    (["-s", ""], {}, "-s"),
    (["-s", "٣"], {}, "-s"),
    (["-s", "5G"], {}, "-s"),
    ([], {"AMP_IMAGESIZE": "huge"}, "AMP_IMAGESIZE"),
    (["-o", "directory/"], {}, "-o"),
    (["-o", "."], {}, "-o"),
    (["-o", ".."], {}, "-o"),
    (["-o", "/dev/null/a"], {}, "-o"),
    (["-o", "/dev/null/x/a"], {}, "-o"),
    (["-o", "a\nb"], {}, "-o"),
    (["-c", "/dev/null"], {}, "-c"),
    (["-w", "/dev/null/x"], {}, "-w"),
    (["-w", "a\tb"], {}, "-w"),
    (["-c", "~nobody-of-that-name/cache"], {}, "-c"),
    ([], {"AMP_CACHEDIR": "~nobody-of-that-name/cache"}, "AMP_CACHEDIR"),
    (["-l", "/no/such/directory/log"], {}, "-l"),
    (["-l", "/"], {}, "-l"),
    (["-k", "Linux Kernel"], {}, "-k"),
    (["-r", ""], {}, "-r"),
    (["-r", "a\nb"], {}, "password"),
    (["--root-password-file", "/no/such/file"], {}, "--root-password-file"),
    (["--root-password-file", "/dev/null"], {}, "password"),
    (["--root-password-hash", "secret"], {}, "--root-password-hash"),
    (["--root-password-hash", "$1$abcdefgh$0123456789012345678901"], {}, "--root-password-hash"),
    (["-r", "a", "--root-password-hash", "x"], {}, "-r and --root-password-hash"),
    (["--root-password-file", "/dev/null"], {"AMP_ROOTPW": "a"}, "AMP_ROOTPW and --root-password-file"),
    ([], {"BASE_OS_MIRROR": "mirror.example/debian"}, "BASE_OS_MIRROR"),
    ([], {"BASE_OS_MIRROR": "gopher://mirror.example/debian"}, "BASE_OS_MIRROR"),
    ([], {"BASE_OS_MIRROR": "http:///debian"}, "BASE_OS_MIRROR"),
    ([], {"BASE_OS_MIRROR": "http://[::1/debian"}, "BASE_OS_MIRROR"),
    ([], {"BASE_OS_MIRROR": "http://mirror.example:port/debian"}, "BASE_OS_MIRROR"),
    ([], {"BASE_OS_MIRROR": "http://mirror.example/debian [trusted=yes]"}, "BASE_OS_MIRROR"),
    ([], {"DIB_DISTRIBUTION_MIRROR": "debian"}, "DIB_DISTRIBUTION_MIRROR"),
    ([], {"DIB_APT_KEYRING": "/no/such/keyring"}, "DIB_APT_KEYRING"),
    ([], {"CLOUD_INIT_DATASOURCES": "Config Drive]"}, "CLOUD_INIT_DATASOURCES"),
    (["-y"], {}, "-y"),
    (["-y", "-i", "ubuntu"], {}, "fedora, centos, rocky, rhel"),
    (["-g", "a..b"], {}, "-g"),
    (["-g=-u"], {}, "-g"),
    (["-g", "refs/heads/a b"], {}, "-g"),
    (["-g", "master", "-p"], {}, "-p"),
    (["-g", "master", "--no-agent"], {}, "--no-agent"),
    (["-p", "--no-agent"], {}, "-p"),
    ([], {"DIB_REPOREF_amphora_agent": "--upload-pack=x"}, "DIB_REPOREF_amphora_agent"),
    ([], {"DIB_REPOLOCATION_amphora_agent": "ext::sh -c x"}, "DIB_REPOLOCATION_amphora_agent"),
    ([], {"DIB_REPOLOCATION_amphora_agent": "ssh://git.example/octavia"}, "DIB_REPOLOCATION_amphora_agent"),
    ([], {"DIB_REPOLOCATION_amphora_agent": "http://git.example/octavia"}, "anybody on the way"),
    (["-g", "x"], {"DIB_REPOLOCATION_octavia_lib": "http://git.example/lib"}, "anybody on the way"),
    (["-g", "x"], {"DIB_REPOLOCATION_upper_constraints": "http://git.example/u"}, "anybody on the way"),
    ([], {"DIB_REPOLOCATION_amphora_agent": "https://git.example/octavia?token=x"}, "DIB_REPOLOCATION_amphora_agent"),
    ([], {"DIB_REPOLOCATION_amphora_agent": "/no/such/clone"}, "DIB_REPOLOCATION_amphora_agent"),
    (["-g", "x"], {"DIB_REPOLOCATION_upper_constraints": "/no/such/file"}, "DIB_REPOLOCATION_upper_constraints"),
    (["-g", "x"], {"DIB_REPOREF_octavia_lib": "x.lock"}, "DIB_REPOREF_octavia_lib"),
    ([], {"DIB_ELEMENTS": "vm"}, "DIB_ELEMENTS"),
    ([], {"DIB_LOCAL_ELEMENTS": "vm"}, "DIB_LOCAL_ELEMENTS"),
    ([], {"DIB_LOCAL_ELEMENTS_PATH": "/x"}, "DIB_LOCAL_ELEMENTS_PATH"),
    ([], {"DIB_LOCAL_IMAGE": "/x"}, "DIB_LOCAL_IMAGE"),
    (["--no-such-option"], {}, "--no-such-option"),
    (["surplus"], {}, "surplus"),
]


@pytest.mark.parametrize(("argv", "environ", "named"), BAD, ids=[repr((a, *e)) for a, e, _ in BAD])
def test_bad_values_are_refused_naming_the_flag(
    argv: list[str],
    environ: dict[str, str],
    named: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, text = status_and_text(capfd, monkeypatch, *argv, **environ)
    assert status == ExitStatus.BAD_VALUE
    assert named in text
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 3  # what failed, what to do
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "environ", "named"),
    [
        (["-o", "LOCKED/a"], {}, "-o"),
        (["-o", "LOCKED/below/a"], {}, "-o"),
        (["-o", "/usr/a"], {}, "-o"),
        (["-c", "LOCKED/below"], {}, "-c"),
        (["-w", "LOCKED/below"], {}, "-w"),
        (["-l", "LOCKED/log"], {}, "-l"),
        (["-l", "/etc/hostname"], {}, "-l"),
        (["--root-password-file", "LOCKED/password"], {}, "--root-password-file"),
        ([], {"DIB_APT_KEYRING": "LOCKED/keyring"}, "DIB_APT_KEYRING"),
    ],
)
def test_places_that_an_ordinary_user_may_not_use(
    argv: list[str], environ: dict[str, str], named: str, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    as_user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    fill = {name: text.replace("LOCKED", str(locked)) for name, text in environ.items()}
    done = subprocess.run(
        [
            *(PYTHON, "-m", "amphora_mkimage", "-i", "debian-minimal", "-c", "/tmp", "-w", "/tmp"),
            *(word.replace("LOCKED", str(locked)) for word in argv),
            *(() if "-o" in argv else ("-o", "/tmp/never-written")),
        ],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(public_root()), **fill},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **as_user,
    )
    assert done.returncode == ExitStatus.BAD_VALUE, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


_NAMELESS = 54321


def _as_nobody(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user whom no file names, as containers are run with ``-u``."""
    return subprocess.run(
        [PYTHON, "-m", "amphora_mkimage", "-i", "debian-minimal", "-w", "/tmp", "-o", "/tmp/never-written", *argv],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(public_root()), **environ},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user=_NAMELESS,
        group=_NAMELESS,
        extra_groups=[],
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("environ", [{}, {"HOME": "/"}, {"HOME": "/nonexistent"}])
def test_a_home_that_cannot_be_used_names_the_option(environ: dict[str, str]) -> None:
    done = _as_nobody(**environ)
    assert done.returncode == ExitStatus.BAD_VALUE, done.stderr
    assert "error: the cache directory (-c, default ~/.cache/image-create): " in done.stderr
    assert "what to do: name " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_no_home_is_needed_where_the_cache_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, _NAMELESS, _NAMELESS)
        done = _as_nobody("-c", directory, "--guest", "namespace", BASE_OS_MIRROR="http://127.0.0.1:9/debian")
        assert done.returncode == ExitStatus.HOST, done.stderr
        assert f"user id {_NAMELESS} has no name" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(BadValueError, match="the current directory is gone"):
        make()
    make("-w", "/tmp", "-o", "/tmp/a")


def test_unused_is_accepted_and_said() -> None:
    warnings: list[str] = []
    make(warnings=warnings, DIB_REPO_PATH="/x", ELEMENTS_REPO_PATH="/y", AMP_WHATEVER="1", DIB_OTHER="1")
    for name in ("DIB_REPO_PATH", "ELEMENTS_REPO_PATH", "AMP_WHATEVER", "DIB_OTHER"):
        assert any(text.startswith(f"{name} is unused") for text in warnings)
    assert len(warnings) == 4
    warnings.clear()
    make("-e", warnings=warnings)
    assert len(warnings) == 1 and warnings[0].startswith("-e is unused")


def test_mirrors_that_differ_are_said() -> None:
    warnings: list[str] = []
    made = make(warnings=warnings, BASE_OS_MIRROR="http://a/debian", DIB_DISTRIBUTION_MIRROR="http://b/debian")
    assert made.mirror == "http://a/debian"
    assert len(warnings) == 1 and "BASE_OS_MIRROR is used" in warnings[0]


@pytest.mark.parametrize(
    ("given", "types", "expected"),
    [
        ("a", "qcow2", ["a.qcow2"]),
        ("a.qcow2", "qcow2", ["a.qcow2"]),
        ("a.tar", "qcow2", ["a.qcow2"]),
        ("a.qcow2.tar", "tar", ["a.tar"]),
        ("a.raw.qcow2", "raw,vhd", ["a.raw", "a.vhd"]),
        ("amphora-1.2.3", "qcow2", ["amphora-1.2.3.qcow2"]),
        ("amphora-1.2.3.qcow2", "qcow2,tar", ["amphora-1.2.3.qcow2", "amphora-1.2.3.tar"]),
        ("a.img", "qcow2", ["a.img.qcow2"]),
        ("a.b.qcow2", "qcow2,qcow2", ["a.b.qcow2"]),
    ],
)
def test_one_right_suffix(
    given: str, types: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for output in (given, str(tmp_path / given)):
        made = make("-o", output, "-t", types)
        assert list(made.outputs.values()) == [tmp_path / name for name in expected]


@pytest.mark.parametrize("said", settings.ARCHITECTURES)
def test_architectures_are_called_as_dpkg_calls_them(said: str) -> None:
    made = make("-a", said)
    assert made.arch == {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el"}.get(said, said)
    assert made.kernel_package == made.base.kernels[made.arch]
    assert set(packages.wanted(made)) >= {*made.base.bootloader[made.arch], made.kernel_package}


@pytest.mark.parametrize(
    ("base", "said", "release"),
    [
        ("debian-minimal", "12", "bookworm"),
        ("debian", "13", "trixie"),
        ("ubuntu-minimal", "24.04", "noble"),
        ("ubuntu", "26.04", "resolute"),
        ("centos", "10", "10-stream"),
        ("rocky", "10", "10"),
    ],
)
def test_a_release_by_its_number(base: str, said: str, release: str) -> None:
    assert make("-i", base, "-d", said).release == release


def test_i386_is_built_of_the_last_release_that_has_a_kernel_for_it() -> None:
    assert make("-a", "i386").release == "bookworm"
    assert make("-a", "armhf").release == make().release == "trixie"
    with pytest.raises(BadValueError, match="neither kernel nor boot loader") as caught:
        make("-a", "i386", "-d", "trixie")
    assert caught.value.remedy == "accepted with this agent: -d bookworm"


def test_architectures_that_a_base_does_not_have() -> None:
    with pytest.raises(BadValueError, match="ubuntu has no bootable system for i386") as caught:
        make("-i", "ubuntu-minimal", "-a", "i386")
    assert caught.value.remedy == "accepted: amd64, x86_64, armhf, arm64, aarch64, ppc64le"


@pytest.mark.parametrize("base", BASES)
def test_every_architecture_has_a_kernel_and_a_bootloader(base: str) -> None:
    assert set(BASES[base].kernels) == set(BASES[base].bootloader) <= set(ARCHITECTURES)
    assert BASES[base].ports <= set(ARCHITECTURES)


def test_ubuntus_ports_are_in_an_archive_of_their_own() -> None:
    there = mirror.choose(BASES["ubuntu-minimal"], "noble", "", "arm64")
    assert there.main.rpartition("/")[2] == "ubuntu-ports"
    assert mirror.choose(BASES["ubuntu-minimal"], "noble", "", "amd64").main != there.main


def test_the_password_and_its_hash_are_in_no_representation() -> None:
    warnings: list[str] = []
    made = make("-r", "Hunter2!secret", "-o", "/tmp/a", warnings=warnings)
    assert made.root_password_hash.startswith("$y$")
    for text in (repr(made), str(made.summary), *warnings):
        assert "Hunter2" not in text
        assert made.root_password_hash not in text
    assert b"Hunter2" not in pickle.dumps(made.__dict__)
    assert made.summary["root_password"] == "set"
    assert make().summary["root_password"] == "locked"
    assert len(warnings) == 1 and "--root-password-file" in warnings[0]


def test_mirror_credentials_are_in_no_representation() -> None:
    made = make(BASE_OS_MIRROR="http://user:Hunter2@mirror.example/debian")
    assert "Hunter2" not in repr(made)
    assert "Hunter2" not in str(made.summary)
    archive = mirror.choose(made.base, made.release, made.mirror)
    assert "Hunter2" not in repr(archive)
    assert "Hunter2" not in archive.sources(made.base, made.release, made.keyring)
    assert archive.logins == ("machine http://mirror.example login user password Hunter2\n",)


def test_password_file_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\nsecond line\n")
    assert make("--root-password-file", str(file)).root_password_hash.startswith("$y$")


def test_settings_reach_the_request(tmp_path: Path) -> None:
    made = make(
        "-n", "-m", "-f", "-s", "7", "-k", "linux-image-amd64", "-d", "bookworm",
        DIB_OCTAVIA_AMP_USE_NFTABLES="0", CLOUD_INIT_DATASOURCES="ConfigDrive, OpenStack", OVERWRITE_OLD_IMAGE="1",
    )  # fmt: skip
    assert (made.ssh, made.cpu_pinning, made.use_tmpfs, made.nftables, made.overwrite) == (
        False, True, False, False, True,
    )  # fmt: skip
    assert (made.size_gib, made.kernel_package, made.release) == (7, "linux-image-amd64", "bookworm")
    assert made.datasources == ("ConfigDrive", "OpenStack")


def test_a_missing_directory_may_be_made_later(tmp_path: Path) -> None:
    made = make("-c", str(tmp_path / "a/b"), "-w", str(tmp_path / "c"))
    assert made.cache_dir == tmp_path / "a/b"
    assert not os.path.lexists(tmp_path / "a")


def test_octavia_lib_is_of_the_branch_of_the_agent() -> None:
    """diskimage-create.sh takes octavia-lib from master."""
    branch = make("-g", "stable/2026.1").branch
    assert branch is not None
    assert (branch.agent.ref, branch.lib.ref) == ("stable/2026.1", "stable/2026.1")
    assert branch.constraints.url.endswith("/stable/2026.1/upper-constraints.txt")
    branch = make("-g", "stable/2026.1", DIB_REPOREF_octavia_lib="v1").branch
    assert branch is not None
    assert (branch.agent.ref, branch.lib.ref) == ("stable/2026.1", "v1")


def test_a_repository_of_ones_own_is_enough_to_ask_for_a_branch(tmp_path: Path) -> None:
    wish = make(DIB_REPOLOCATION_amphora_agent=str(tmp_path))
    assert wish.branch is not None
    assert (wish.branch.agent.repository.path, wish.branch.agent.ref) == (tmp_path, "master")
    assert wish.summary["agent"] == "branch master"
    assert [make(*argv).summary["agent"] for argv in ((), ("-p",), ("--no-agent",))] == ["released", "package", "none"]


def test_what_goes_with_a_branch_only_is_said_to_be_unused() -> None:
    warnings: list[str] = []
    make(warnings=warnings, DIB_REPOREF_octavia_lib="x", DIB_REPOLOCATION_upper_constraints="/x")
    assert len(warnings) == 2
    assert all("unused" in text for text in warnings)


def test_passwords_of_repositories_stay_in_them() -> None:
    wish = make("-g", "x", DIB_REPOLOCATION_amphora_agent="https://user:sesame@git.example/octavia")
    assert wish.branch is not None
    assert wish.branch.agent.repository.login == ("user", "sesame")
    assert "sesame" not in f"{wish!r}{wish.summary}{wish.branch}"


@pytest.mark.parametrize(
    ("argv", "environ", "lines"),
    [
        (
            ("-g", "stable/2026.1"),
            {
                "DIB_REPOLOCATION_amphora_agent": "https://user:sesame@git.example/octavia",
                "DIB_REPOREF_octavia_lib": "x",
            },
            ["octavia stable/2026.1 of https://git.example/octavia, octavia-lib x beside it", "upper-constraints.txt"],
        ),
        (("-p",), {}, ["agent     the distribution's package", "agent: octavia-agent"]),
        ((), {}, ["agent     octavia ", " for Python 3.13, "]),
    ],
)
def test_the_plan_says_which_agent(
    argv: tuple[str, ...], environ: dict[str, str], lines: list[str], tmp_path: Path
) -> None:
    made = plan.make(make(*argv, BASE_OS_MIRROR="http://mirror.example/debian", **environ))
    text = made.describe([], Store(tmp_path, print), Choice("namespace", "x"))
    for line in lines:
        assert line in text
    assert "sesame" not in text
