"""Run diskimage-builder with Octavia's elements, in a directory of its own.

Both come from PyPI when it runs: nothing of them is in this repository. It needs root, because diskimage-builder does.
Everything is mounted in a mount namespace of its own, which takes the mounts with it; loop devices are detached here.

What differs from Octavia's own CI, each because of the host or of Debian as the base:

- a shim for sudo(8) on hosts without it, and for kpartx(8) and dmsetup(8) where the kernel has no device mapper
  (``shims/``): the partitions of the loop device are then the kernel's own;
- an element that lets pip in the chroot trust the host's certificate authorities (``elements/host-ca``);
- the agent's sources are git repositories made of the released source distributions, with the versions of our lock file
  as constraints: the same agent as ours, and no clone over the network;
- one package name of Octavia's list that Debian does not have is mapped to nothing.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.agent import lock
from amphora_mkimage.plan import Plan

HERE = Path(__file__).parent
VERSION = "3.43.0"
NEEDED = ("git", "losetup", "mkfs.ext4", "mmdebstrap", "partx", "qemu-img", "sfdisk", "unshare")
#: Settings of this host's pip that name files of this host, which do not exist in the chroot.
_HOST_ONLY = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PYTHONPATH", "VIRTUAL_ENV")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "PIP_CERT")


@dataclass(frozen=True)
class Build:
    """One run.

    :param seconds: from start to end
    :param cpu_seconds: of all its processes
    """

    seconds: float
    cpu_seconds: float


class DiskimageBuilder:
    """diskimage-builder and what it builds from, for a release and an agent.

    :param directory: for everything: programs, sources, caches, temporary files, logs
    :param work: our plan of the same image
    :raises SystemExit: it cannot run here
    """

    def __init__(self, directory: Path, work: Plan) -> None:
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if os.geteuid() != 0 or missing:
            raise SystemExit(f"diskimage-builder needs root, and {', '.join(NEEDED)} (not here: {missing or 'root'})")
        self.directory = directory
        self.work = work
        self.shims = self._choose_shims()
        self._install()
        self._prepare_sources()

    def build(self, name: str) -> tuple[Path, Build]:
        """Build once; the image, and what it took.

        :param name: of this build, for its files
        """
        output, log = self.directory / f"{name}.qcow2", self.directory / f"{name}.log"
        script = self.directory / "octavia/diskimage-create/diskimage-create.sh"
        argv = ["unshare", "--mount", "--propagation=private", "bash", script, "-o", output]
        argv += ["-c", self.directory / "image-cache", "-w", self.directory / "work"]
        for place in ("work", "tmp", "home"):
            (self.directory / place).mkdir(exist_ok=True)
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        try:
            with log.open("wb") as file:
                done = subprocess.run(
                    argv, env=self._environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
                )
        finally:
            self._detach()
        seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0 or not output.is_file():
            tail = log.read_text(errors="replace").splitlines()[-30:]
            raise SystemExit("\n".join([*tail, f"diskimage-builder failed ({done.returncode}), see {log}"]))
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return output, Build(seconds, cpu)

    def _choose_shims(self) -> list[str]:
        shims = [] if shutil.which("sudo") else ["sudo"]
        mapper = shutil.which("kpartx") and shutil.which("dmsetup")
        works = mapper and subprocess.run(["dmsetup", "version"], capture_output=True, check=False).returncode == 0
        shims += [] if works else ["kpartx", "dmsetup"]
        place = self.directory / "shims"
        place.mkdir()
        for name in shims:
            (place / name).symlink_to(HERE / "shims" / name)
        return shims

    def _install(self) -> None:
        venv = self.directory / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run(
            [venv / "bin/pip", "install", "-q", f"diskimage-builder=={VERSION}", "setuptools<81"], check=True
        )

    def _prepare_sources(self) -> None:
        agent = self.work.agent
        assert agent is not None
        # All that is locked: ours leaves out half of it, and diskimage-builder does not.
        locked = lock.select(agent.python, self.work.request.arch)
        versions = {package.name: package.version for package in locked if package.name != lock.INSTALLER}
        for project in ("octavia", "octavia-lib"):
            self._repository(project, versions[project])
        lines = [f"{name}==={version}" for name, version in versions.items() if name not in ("octavia", "octavia-lib")]
        (self.directory / "constraints.txt").write_text("\n".join([*lines, ""]), encoding="ascii")
        names = self.directory / "octavia/elements/amphora-agent/pkg-map"
        table = json.loads(names.read_text(encoding="utf-8"))
        table.setdefault("distro", {})["debian"] = {"ubuntu-cloudimage-keyring": ""}
        names.write_text(json.dumps(table), encoding="utf-8")

    def _repository(self, project: str, version: str) -> None:
        """Make a git repository of a released source distribution; its files stay beside it in a working tree."""
        download = self.directory / "download"
        argv = [self.directory / "venv/bin/pip", "download", "-q", "--no-deps", "--no-binary=:all:", "-d", download]
        subprocess.run([*argv, f"{project}=={version}"], check=True)
        (archive,) = download.glob(f"{project.replace('-', '?')}-{version}.tar.gz")
        subprocess.run(["tar", "--no-same-owner", "-xf", archive, "-C", download], check=True)
        (download / archive.name.removesuffix(".tar.gz")).rename(self.directory / project)
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        for command in (
            ["init", "-q", "-b", "master"],
            ["add", "-A", "-f"],
            [*identity, "commit", "-q", "-m", version],
        ):
            subprocess.run(["git", "-C", self.directory / project, *command], check=True)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _HOST_ONLY}
        bundle = next((kept[name] for name in _CA_VARIABLES if kept.get(name)), "")
        index = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        archive = self.work.archive
        return {
            **kept,
            **({"PIP_INDEX_URL": index} if index else {}),
            "HOST_CA_BUNDLE": bundle,
            "HOME": str(self.directory / "home"),
            "PATH": f"{self.directory}/shims:{self.directory}/venv/bin:{_PATH}",
            "TMP_DIR": str(self.directory / "tmp"),
            "OVERWRITE_OLD_IMAGE": "1",
            # diskimage-create.sh offers no Debian (-i), but takes the element's name from the environment.
            "AMP_BASEOS": "debian-minimal",
            "DIB_RELEASE": self.work.request.release,
            "DIB_PYTHON_VERSION": "3",
            **({"DIB_DISTRIBUTION_MIRROR": archive.main} if archive.main else {}),
            **({"DIB_DEBIAN_SECURITY_MIRROR": archive.security} if archive.security else {}),
            "DIB_REPOLOCATION_amphora_agent": f"file://{self.directory}/octavia",
            "DIB_REPOLOCATION_octavia_lib": f"file://{self.directory}/octavia-lib",
            "DIB_REPOLOCATION_upper_constraints": f"file://{self.directory}/constraints.txt",
            "DIB_LOCAL_ELEMENTS": "host-ca",
            "DIB_LOCAL_ELEMENTS_PATH": str(HERE / "elements"),
        }

    def _detach(self) -> None:
        """Detach what a failed build leaves: loop devices whose file is in our directory, and no others."""
        listing = subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True, check=True).stdout
        for device in json.loads(listing or "{}").get("loopdevices", []):
            if not device["back-file"].startswith(f"{self.directory}/"):
                continue
            for link in Path("/dev/mapper").glob(f"{Path(device['name']).name}p*"):
                if link.is_symlink() and "kpartx" in self.shims:
                    link.unlink()
            subprocess.run(["partx", "--delete", device["name"]], capture_output=True, check=False)
            subprocess.run(["losetup", "--detach", device["name"]], check=False)
