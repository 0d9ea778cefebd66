"""A root filesystem that has everything that is checked, and nothing else, to be spoilt by tests.

Kernel, initramfs and GRUB are their headers only: enough for checks that look at the bytes, and small enough to make
an image of in a second. Tests on real images are in tests/build.
"""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amphora_mkimage.verify import expectations, guest_disk, image_file
from amphora_mkimage.verify.checks import CHECKS, run_all
from amphora_mkimage.verify.expectations import Expectations
from amphora_mkimage.verify.partition_table import ESP, Partition, PartitionTable
from amphora_mkimage.verify.result import Outcome
from amphora_mkimage.verify.subject import Subject
from amphora_mkimage.verify.sysctl import EXPECTED
from amphora_mkimage.verify.tar_tree import TarTree

KERNEL = "6.12.9-cloud-amd64"
UUID = "11111111-2222-3333-4444-555555555555"
#: systemd's.
DEFAULT_LINK = "/usr/lib/systemd/network/99-default.link"
VENV = "/opt/amphora-agent-venv"
SITE = f"{VENV}/lib/python3.13/site-packages"
MODULES = (
    "brd",
    "dm-crypt",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_lc",
    "ip_vs_sh",
    "nf_conntrack",
    "nft_masq",
    "nft_nat",
    "virtio_net",
    "virtio_scsi",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
)
#: Drivers of SR-IOV virtual functions.
FUNCTIONS = ("iavf", "ixgbevf", "igbvf", "mlx5_core", "bnxt_en")
PACKAGES = (
    "haproxy",
    "keepalived",
    "ipvsadm",
    "cloud-init",
    "cryptsetup-bin",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mawk",
    "procps",
    "python3",
    "rsyslog",
    "systemd-sysv",
    "udev",
    "ca-certificates",
    "cloud-guest-utils",
    "dbus",
    "logrotate",
    "netbase",
    "openssh-server",
    "nftables",
    f"linux-image-{KERNEL}",
)
PROGRAMS = (
    "haproxy",
    "keepalived",
    "ipvsadm",
    "ip",
    "sysctl",
    "modprobe",
    "sort",
    "join",
    "awk",
    "systemctl",
    "cryptsetup",
    "mkfs.ext2",
    "mount",
    "umount",
    "ping",
    "nft",
    "rsyslogd",
    "sshd",
    "cloud-init",
    "ifup",
    "ifdown",
    "ifquery",
    "route",
    "dhclient",
    "dpkg-query",
)
SBIN = ("haproxy", "keepalived", "sshd", "modprobe", "sysctl", "ifup", "ifdown", "ifquery", "route")
#: Where cloud-init renders for ifupdown, and the line of it that matters.
ENI = "/usr/lib/python3/dist-packages/cloudinit/net/eni.py"
UNITS = (
    "cloud-init-local.service",
    "cloud-init-network.service",
    "cloud-config.service",
    "cloud-final.service",
    "ssh.service",
    "rsyslog.service",
    "networking.service",
)
#: What wants them, and what they start.
AGENT_UNITS = {
    "amphora-agent.service": ("multi-user.target", "/usr/local/bin/amphora-agent"),
    "prometheus-proxy.service": ("multi-user.target", "/usr/local/bin/prometheus-proxy"),
    "certs-ramfs.service": ("amphora-agent.service", "/usr/local/bin/certfs-ramfs"),
}
AGENT_PROGRAMS = (
    "amphora-agent",
    "amphora-interface",
    "haproxy-vrrp-check",
    "amphora-health-checker",
    "prometheus-proxy",
    "certfs-ramfs",
    "lvs-masquerade.sh",
)
#: The programs of an amphora among octavia's modules, and what these import (tests/build sees it imported).
#: As the agent of octavia 19 has it, shortened.
NETNS_TEMPLATE = f"{SITE}/octavia/amphorae/backends/agent/api_server/templates/amphora-netns.systemd.j2"
NETNS_UNIT = "[Service]\nExecStart=-/bin/sh -c '/sbin/ip -br link | awk \\'{print $3 \" \" $1}\\' | sort -k 1'\n"
MODULES_OF_OCTAVIA = ("agent", "haproxy_vrrp_check", "health_checker", "interface", "prometheus_proxy")
IMPORTED = (
    "cryptography",
    "distro",
    "flask",
    "gunicorn",
    "jinja2",
    "jsonschema",
    "keystoneauth1",
    "octavia_lib",
    "oslo_config",
    "oslo_db",
    "oslo_log",
    "oslo_messaging",
    "oslo_middleware",
    "oslo_reports",
    "oslo_serialization",
    "oslo_utils",
    "pyroute2",
    "stevedore",
    "webob",
    "werkzeug",
)


@dataclass
class TreeBuilder:
    """Files by absolute path: (mode with type, content or target)."""

    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def write(self, path: str, content: str | bytes = b"", mode: int = 0o644) -> None:
        self.files[path] = (stat.S_IFREG | mode, content.encode() if isinstance(content, str) else content)

    def append(self, path: str, content: str) -> None:
        mode, before = self.files.get(path, (stat.S_IFREG | 0o644, b""))
        self.files[path] = (mode, before + content.encode())

    def replace(self, path: str, old: str, new: str) -> None:
        mode, before = self.files[path]
        assert old.encode() in before
        self.files[path] = (mode, before.replace(old.encode(), new.encode()))

    def link(self, path: str, target: str) -> None:
        self.files[path] = (stat.S_IFLNK | 0o777, target.encode())

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self.files[path] = (stat.S_IFDIR | mode, b"")

    def chmod(self, path: str, mode: int) -> None:
        kind, content = self.files[path]
        self.files[path] = (stat.S_IFMT(kind) | mode, content)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all in it."""
        gone = [name for name in self.files if name == path or name.startswith(f"{path}/")]
        assert gone, path
        for name in gone:
            del self.files[name]

    def tar(self, path: Path) -> Path:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, (mode, content) in self.files.items():
                member = tarfile.TarInfo(f".{name}")
                member.mode = stat.S_IMODE(mode)
                if stat.S_ISLNK(mode):
                    member.type, member.linkname = tarfile.SYMTYPE, content.decode()
                elif stat.S_ISDIR(mode):
                    member.type = tarfile.DIRTYPE
                else:
                    member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    def unpack(self, directory: Path) -> Path:
        for name, (mode, content) in self.files.items():
            path = directory / name[1:]
            if stat.S_ISDIR(mode):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(mode):
                path.symlink_to(content.decode())
                continue
            if stat.S_ISREG(mode):
                path.write_bytes(content)
            path.chmod(stat.S_IMODE(mode))
        return directory


def bzimage(version: str) -> bytes:
    """The start of an x86 kernel (Documentation/arch/x86/boot.rst)."""
    image = bytearray(64 << 10)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x1000)
    text = f"{version} (builder@nowhere) #1 SMP\0".encode()
    image[0x1200 : 0x1200 + len(text)] = text
    return bytes(image)


def cpio(*names: str) -> bytes:
    """A "newc" archive of empty files."""
    archive = b""
    for inode, name in enumerate((*names, "TRAILER!!!")):
        raw = name.encode() + b"\0"
        values = (inode + 1, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(raw), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in values)
        archive += (header + raw).ljust((len(header + raw) + 3) // 4 * 4, b"\0")
    return archive.ljust((len(archive) + 511) // 512 * 512, b"\0")


def initramfs(version: str) -> bytes:
    """Microcode, plain; then the rest, compressed."""
    microcode = cpio("kernel/x86/microcode/GenuineIntel.bin")
    return microcode + gzip.compress(cpio("init", "lib", f"lib/modules/{version}/modules.dep"))


GRUB_CFG = f"""\
set default="0"
function load_video {{
  insmod all_video
}}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple' {{
\tload_video
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tsearch --no-floppy --fs-uuid --set=root {UUID}
\techo\t'Loading Linux {KERNEL} ...'
\tlinux\t/boot/vmlinuz-{KERNEL} root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200
\tinitrd\t/boot/initrd.img-{KERNEL}
}}
if [ "$grub_platform" = "efi" ]; then
  menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {{
    fwsetup
  }}
fi
"""


def amphora(*, agent: bool = True) -> TreeBuilder:
    """A complete Debian amphora."""
    tree = TreeBuilder()
    for directory in ("bin", "sbin", "lib"):
        tree.mkdir(f"/usr/{directory}")
        tree.link(f"/{directory}", f"usr/{directory}")
    for directory in ("/tmp", "/var/log", "/var/tmp", "/root", "/home", "/boot/efi", "/usr/share/man"):
        tree.mkdir(directory)
    _identity(tree)
    _boot(tree)
    _configuration(tree)
    stanza = "Package: {0}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.1-1\nDescription: x\n y\n"
    tree.write("/var/lib/dpkg/status", "\n".join(stanza.format(name) for name in PACKAGES))
    for name in PROGRAMS:
        place = "sbin" if name in SBIN else "bin"
        tree.write(f"/usr/{place}/{name}", "#!/bin/sh\n", 0o755)
    for name in ("ip", "sysctl", "modprobe"):
        tree.write(f"/usr/sbin/{name}", "#!/bin/sh\n", 0o755)
    tree.write("/usr/bin/sudo", "", 0o4755)
    tree.write("/usr/bin/sh", "", 0o755)
    tree.write("/usr/lib/systemd/system-generators/cloud-init-generator", "", 0o755)
    for unit in ("haproxy.service", *UNITS, "multi-user.target"):
        tree.write(f"/usr/lib/systemd/system/{unit}", "[Unit]\n")
    tree.link("/usr/lib/systemd/system/default.target", "multi-user.target")
    tree.write(
        DEFAULT_LINK, "[Match]\nOriginalName=*\n\n[Link]\nAlternativeNamesPolicy=database onboard slot path mac\n"
    )
    for unit in UNITS:
        tree.link(f"/etc/systemd/system/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}")
    if agent:
        _agent(tree)
    return tree


def _identity(tree: TreeBuilder) -> None:
    tree.write(
        "/usr/lib/os-release",
        'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
    )
    tree.link("/etc/os-release", "../usr/lib/os-release")
    tree.write("/etc/machine-id", "", 0o444)
    tree.write("/etc/hostname", "amphora\n")
    tree.write(
        "/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nhaproxy:x:101:101::/var/lib/haproxy:/usr/sbin/nologin\n"
    )
    tree.write("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    tree.write("/etc/shadow", "root:*:20000:0:99999:7:::\nhaproxy:!:20000::::::\n", 0o640)


def _boot(tree: TreeBuilder) -> None:
    tree.write("/etc/fstab", "LABEL=cloudimg-rootfs / ext4 defaults 0 1\n")
    tree.write("/boot/grub/grub.cfg", GRUB_CFG)
    tree.write(f"/boot/vmlinuz-{KERNEL}", bzimage(KERNEL))
    tree.write(f"/boot/initrd.img-{KERNEL}", initramfs(KERNEL))
    paths = "".join(f"kernel/drivers/{name}.ko.xz: kernel/lib/x.ko.xz\n" for name in (*MODULES, *FUNCTIONS))
    tree.write(f"/usr/lib/modules/{KERNEL}/modules.dep", paths)
    for path in ("lib/x", *(f"drivers/{name}" for name in (*MODULES, *FUNCTIONS))):
        tree.write(f"/usr/lib/modules/{KERNEL}/kernel/{path}.ko.xz", "")
    tree.write(f"/usr/lib/modules/{KERNEL}/modules.builtin", "kernel/drivers/block/virtio_blk.ko\n")


def _configuration(tree: TreeBuilder) -> None:
    for key, value in EXPECTED.items():
        tree.write(f"/etc/sysctl.d/{key}.conf", f"{key} = {value}\n")
    tree.write("/var/lib/octavia/haproxy-default-user-group.conf", "global\n    group nogroup\n")
    tree.write("/var/lib/octavia/ping-wrapper.sh", "#!/bin/sh\n", 0o755)
    tree.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
    tree.write("/etc/logrotate.conf", "maxsize 50M\nweekly\ninclude /etc/logrotate.d\n")
    tree.write(
        "/etc/logrotate.d/haproxy", "/var/log/haproxy.log {\n daily\n postrotate\n  true }\n endscript\n rotate 7\n}\n"
    )
    tree.write("/usr/lib/systemd/system/logrotate.timer", "[Timer]\nOnCalendar=daily\n")
    tree.write("/etc/systemd/system/logrotate.timer.d/50.conf", "[Timer]\nOnCalendar=\nOnCalendar=*:0/5\n")
    tree.link("/etc/systemd/system/timers.target.wants/logrotate.timer", "/usr/lib/systemd/system/logrotate.timer")
    tree.write("/etc/nsswitch.conf", "hosts:          files\n")
    tree.write("/etc/cloud/cloud.cfg", "users:\n  - default\ndatasource_list: [ NoCloud ]\n")
    tree.write("/etc/cloud/cloud.cfg.d/91-dib-cloud-init-datasources.cfg", "datasource_list: [  ConfigDrive, None ]\n")
    tree.write("/etc/cloud/cloud.cfg.d/93-network.cfg", "disable_network_activation: true\n")
    tree.write(ENI, '        up = indent + "post-up route add"\n')
    tree.write("/etc/network/interfaces", "auto lo\niface lo inet loopback\n")
    tree.write("/etc/network/if-pre-up.d/mtu", '#!/bin/sh\nip link set dev "$IFACE" mtu "$IF_MTU"\n', 0o755)
    tree.write("/etc/rsyslog.conf", 'module(load="imuxsock") # local\n$IncludeConfig /etc/rsyslog.d/*.conf\n')
    tree.write(
        "/etc/rsyslog.d/49-haproxy.conf", '$AddUnixListenSocket /var/lib/haproxy/dev/log\n:programname, "haproxy"\n'
    )
    tree.write("/etc/apt/sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\n")


def _agent(tree: TreeBuilder) -> None:
    tree.write("/usr/bin/python3.13", "", 0o755)
    tree.link("/usr/bin/python3", "python3.13")
    tree.link(f"{VENV}/bin/python3", "/usr/bin/python3")
    tree.write(f"{VENV}/pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.13.5\n")
    for name in AGENT_PROGRAMS:
        tree.write(f"/usr/local/bin/{name}", f"#!{VENV}/bin/python3\n", 0o755)
    for name in MODULES_OF_OCTAVIA:
        tree.write(f"{SITE}/octavia/cmd/{name}.py")
    tree.write(NETNS_TEMPLATE, NETNS_UNIT)
    for name in IMPORTED:
        tree.write(f"{SITE}/{name}/__init__.py")
    for unit, (target, program) in AGENT_UNITS.items():
        tree.write(f"/usr/lib/systemd/system/{unit}", f"[Service]\nExecStart={program} --with arguments\n")
        tree.link(f"/etc/systemd/system/{target}.wants/{unit}", f"/usr/lib/systemd/system/{unit}")
    tree.write("/etc/rsyslog.d/55-octavia-socket.conf", 'input(type="imuxsock" Socket="/run/rsyslog/octavia/log")\n')
    for path in ("/etc/octavia", "/etc/octavia/certs"):
        tree.mkdir(path)


def check_tar(tree: TreeBuilder, path: Path, expected: Expectations | None = None) -> dict[str, Outcome]:
    """Run all checks on the tree as a tar."""
    archive = TarTree(tree.tar(path))
    try:
        size = path.stat().st_size
        image = image_file.ImageFile(path, "tar", size, size)
        outcomes = run_all(Subject(image, expected or expectations.load(path), archive=archive))
    finally:
        archive.close()
    return {outcome.check.id: outcome for outcome in outcomes}


def check_disk(
    tree: TreeBuilder,
    path: Path,
    identifier: str,
    expected: Expectations | None = None,
    *,
    size: int = 2 << 30,
    free: int = 1 << 30,
    esp: Sequence[str] = (),
) -> Outcome:
    """Run one check of a disk that asks the appliance nothing more, with what the appliance would have found."""
    archive = TarTree(tree.tar(path))
    facts = {"TYPE": "ext4", "LABEL": "cloudimg-rootfs", "UUID": UUID}
    root = guest_disk.Filesystem("/dev/sda3", facts, clean=True, mountpoint="/")
    table = PartitionTable("gpt", (Partition(2, 1 << 20, 1 << 20, ESP),) if esp else ())
    disk = guest_disk.GuestDisk(None, table, [root], ["/dev/sda3"], root, free=free, tree=archive)
    disk.esp_files = list(esp)
    image = image_file.ImageFile(path, "raw", size, size)
    (check,) = (check for check in CHECKS if check.id == identifier)
    try:
        return Outcome(check, tuple(check.function(Subject(image, expected or Expectations(), disk=disk))))
    finally:
        archive.close()
