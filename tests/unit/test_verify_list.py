"""The list of what makes a complete amphora, clause by clause: each is broken by itself, and found.

The first column is a clause's number, "w" for warnings; docs/verify.md has the same list for people.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_spoils import (
    RULE,
    Spoil,
    append,
    both,
    chmod,
    confined,
    distribution,
    link,
    no_package,
    package,
    remove,
    replace,
    wanted_by,
    without_program,
    write,
)
from verify_tree import (
    AGENT_UNITS,
    FUNCTIONS,
    IMPORTED,
    KERNEL,
    MODULES,
    MODULES_OF_OCTAVIA,
    SITE,
    UUID,
    VENV,
    amphora,
    check_disk,
    check_tar,
)

from amphora_mkimage.verify.expectations import GIB, Expectations
from amphora_mkimage.verify.result import Result

Clause = tuple[str, str, Result, str, Spoil]
FAIL, WARN, INFO, PASS = Result.FAIL, Result.WARN, Result.INFO, Result.PASS

PROGRAMS = (
    "haproxy", "keepalived", "ipvsadm", "ip", "sysctl", "modprobe", "sort", "join", "awk", "systemctl", "cryptsetup",
    "mkfs.ext2", "mount", "umount", "ping", "dpkg-query",
)  # fmt: skip
COMMANDS = ("amphora-agent", "amphora-interface", "haproxy-vrrp-check", "amphora-health-checker", "prometheus-proxy")
SCRIPTS = {
    "/usr/local/bin/lvs-masquerade.sh": "agent.masquerade",
    "/usr/local/bin/certfs-ramfs": "agent.units",
    "/var/lib/octavia/ping-wrapper.sh": "configuration.ping-wrapper",
}
CLOUD_INIT = (
    "cloud-init-local.service", "cloud-init-network.service", "cloud-config.service", "cloud-final.service",
)  # fmt: skip
SYSCTLS = (
    "net.ipv4.tcp_max_tw_buckets", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_synack_retries", "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.ip_nonlocal_bind", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range", "net.ipv6.ip_nonlocal_bind", "net.core.somaxconn",
    "net.core.netdev_max_backlog", "net.core.rmem_max", "net.core.wmem_max", "fs.file-max", "fs.nr_open",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
)  # fmt: skip

CLAUSES: list[Clause] = [
    # 1: a distribution that the agent knows
    *(("1", "packages.distribution", FAIL, name, distribution(name)) for name in ("almalinux", "openEuler", "ol")),
    ("1", "packages.distribution", FAIL, "none", replace("/usr/lib/os-release", "ID=debian\n", "")),
    # 2: a package database that can be asked
    ("2", "packages.database", FAIL, "no package database", remove("/var/lib/dpkg/status")),
    *(("2", "packages.required", FAIL, name, no_package(name)) for name in ("haproxy", "keepalived", "ipvsadm")),
    # 3: programs
    *(("3", "packages.programs", FAIL, name, without_program(name)) for name in PROGRAMS),
    ("3", "packages.haproxy", FAIL, "1.7", replace("/var/lib/dpkg/status",
        "haproxy\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0",
        "haproxy\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.7")),
    ("3", "configuration.ping-wrapper", FAIL, "ping6",
        write("/var/lib/octavia/ping-wrapper.sh", "#!/bin/sh\nping6 -c 1 $HAPROXY_SERVER_ADDR\n", 0o755)),
    ("3", "packages.programs", FAIL, "neither nft", without_program("nft")),
    ("3", "packages.programs", FAIL, "neither nft",
        both(without_program("nft"), write("/usr/sbin/iptables", "", 0o755))),
    ("3", "packages.programs", INFO, "dhclient", without_program("dhclient")),
    # 4: the agent's programs, and what they import
    *(("4", "agent.commands", FAIL, name, remove(f"/usr/local/bin/{name}")) for name in COMMANDS),
    *(("4", "agent.commands", FAIL, name, link(f"/usr/local/bin/{name}", f"{VENV}/bin/{name}")) for name in COMMANDS),
    *(("4", "agent.commands", FAIL, f"{name} has mode 0700", chmod(f"/usr/local/bin/{name}", 0o700))
        for name in COMMANDS),
    *(("4", "agent.commands", FAIL, f"{name} names an interpreter",
        write(f"/usr/local/bin/{name}", "#!/opt/elsewhere/bin/python3\n", 0o755)) for name in COMMANDS),
    ("4", "agent.imports", FAIL, "no interpreter", remove(f"{VENV}/bin/python3")),
    ("4", "agent.imports", FAIL, "no interpreter", remove("/usr/bin/python3.13")),
    ("4", "agent.imports", FAIL, "pyvenv.cfg", remove(f"{VENV}/pyvenv.cfg")),
    ("4", "agent.imports", FAIL, "is for python3.13, and its interpreter is /usr/bin/python3.14",
        both(write("/usr/bin/python3.14", "", 0o755), link("/usr/bin/python3", "python3.14"))),
    *(("4", "agent.imports", FAIL, name.replace("oslo_", "oslo.").replace("octavia_", "octavia-"),
        remove(f"{SITE}/{name}")) for name in IMPORTED),
    *(("4", "agent.imports", FAIL, f"octavia.cmd.{name}", remove(f"{SITE}/octavia/cmd/{name}.py"))
        for name in MODULES_OF_OCTAVIA),
    # 5: scripts and the group at the paths that are hard-coded
    *(("5", check, FAIL, f"{path} does not exist", remove(path)) for path, check in SCRIPTS.items()),
    *(("5", check, FAIL, f"{path} has mode 0644", chmod(path, 0o644)) for path, check in SCRIPTS.items()),
    *(("5", check, FAIL, f"{path} has mode 0700", chmod(path, 0o700)) for path, check in SCRIPTS.items()),
    *(("5", check, FAIL, f"{path} names an interpreter", write(path, "#!/bin/zsh\n", 0o755))
        for path, check in SCRIPTS.items()),
    *(("5", "configuration.ping-wrapper", FAIL, "an empty PATH",
        write("/var/lib/octavia/ping-wrapper.sh", f"#!/bin/sh\n{call}ping -c 1 x\n", 0o755))
        for call in ("", "exec ")),
    ("5", "configuration.haproxy-group", FAIL, "does not exist",
        remove("/var/lib/octavia/haproxy-default-user-group.conf")),
    ("5", "configuration.haproxy-group", FAIL, "global section",
        write("/var/lib/octavia/haproxy-default-user-group.conf", "group nogroup\n")),
    ("5", "configuration.haproxy-group", FAIL, "nogroup is not in /etc/group", write("/etc/group", "root:x:0:\n")),
    # 6: units
    *(("6", "agent.units", FAIL, f"no {unit}", remove(f"/usr/lib/systemd/system/{unit}")) for unit in AGENT_UNITS),
    *(("6", "agent.units", FAIL, f"{unit} is not enabled", remove(wanted_by(unit, target)))
        for unit, (target, _) in AGENT_UNITS.items()),
    *(("6", "agent.units", FAIL, f"{unit} is masked", link(f"/etc/systemd/system/{unit}", "/dev/null"))
        for unit in AGENT_UNITS),
    *(("6", "agent.units", FAIL, f"starts {program}", remove(program)) for _, program in AGENT_UNITS.values()),
    ("6", "services.haproxy", FAIL, "enabled",
        link(wanted_by("haproxy.service"), "/lib/systemd/system/haproxy.service")),
    ("6", "agent.unit-directory", FAIL, "/ read-only",
        write("/etc/fstab", "LABEL=cloudimg-rootfs / ext4 ro,noatime 0 1\n")),
    ("6", "agent.unit-directory", FAIL, "/usr read-only",
        append("/etc/fstab", "LABEL=usr /usr ext4 defaults,ro 0 2\n")),
    ("6", "agent.unit-directory", FAIL, "/usr read-only",
        append("/etc/fstab", "LABEL=usr /usr squashfs defaults 0 2\n")),
    ("6", "agent.unit-directory", FAIL, "command line",
        replace("/boot/grub/grub.cfg", " ro ", " ro ostree=/ostree/1 ")),
    ("6", "agent.unit-directory", FAIL, "not a directory", both(
        remove("/usr/lib/systemd/system"), write("/usr/lib/systemd/system"))),
    # 7: cloud-init and the network
    ("7", "services.cloud-init", FAIL, "not installed", without_program("cloud-init")),
    *(("7", "services.cloud-init", FAIL, unit if "network" not in unit else "network stage", remove(wanted_by(unit)))
        for unit in CLOUD_INIT),
    ("7", "services.cloud-init", FAIL, "cloud-init-main.service",
        write("/usr/lib/systemd/system/cloud-init-main.service", "[Unit]\n")),
    ("7", "services.cloud-init", FAIL, "no generator",
        remove("/usr/lib/systemd/system-generators/cloud-init-generator")),
    ("7", "services.cloud-init", FAIL, "cloud-init.disabled", write("/etc/cloud/cloud-init.disabled")),
    ("7", "services.cloud-init", FAIL, "ds-identify", write("/etc/cloud/ds-identify.cfg", "policy: disabled\n")),
    ("7", "configuration.datasources", FAIL, "NoCloud",
        remove("/etc/cloud/cloud.cfg.d/91-dib-cloud-init-datasources.cfg")),
    ("7", "configuration.datasources", FAIL, "no datasource_list", both(
        remove("/etc/cloud/cloud.cfg.d/91-dib-cloud-init-datasources.cfg"), write("/etc/cloud/cloud.cfg"))),
    ("7", "configuration.network", FAIL, "neither", without_program("ifup")),
    ("7", "configuration.network", FAIL, "not enabled", remove(wanted_by("networking.service"))),
    # 9: logs
    ("9", "configuration.logging", FAIL, "no rsyslogd", without_program("rsyslogd")),
    ("9", "services.rsyslog", FAIL, "not enabled", remove(wanted_by("rsyslog.service"))),
    ("9", "agent.log-socket", FAIL, "does not listen", remove("/etc/rsyslog.d/55-octavia-socket.conf")),
    ("9", "agent.log-socket", FAIL, "does not include", write("/etc/rsyslog.conf", '$ModLoad imuxsock\n')),
    ("9", "agent.log-socket", FAIL, "does not load",
        write("/etc/rsyslog.conf", 'include(file="/etc/rsyslog.d/*.conf")\n# module(load="imuxsock")\n')),
    ("9", "agent.log-socket", FAIL, "does not allow", confined("flags=(attach_disconnected) ", "# nothing\n")),
    ("9", "agent.log-socket", FAIL, "attach_disconnected", confined("", RULE)),
    # 10: kernel settings
    *(("10", "configuration.sysctl", FAIL, key, remove(f"/etc/sysctl.d/{key}.conf")) for key in SYSCTLS),
    *(("10", "configuration.sysctl", FAIL, f"{key}.conf has quotes",
        write(f"/etc/sysctl.d/{key}.conf", f'{key} = "1"\n')) for key in SYSCTLS),
    # 12: directories, and nothing that belongs to one amphora
    ("12", "agent.directories", FAIL, "/etc/octavia, /etc/octavia/certs", remove("/etc/octavia")),
    ("12", "agent.directories", FAIL, "/etc/octavia/certs", remove("/etc/octavia/certs")),
    ("12", "agent.directories", FAIL, "/var/lib/octavia", remove("/var/lib/octavia")),
    ("12", "leaks.agent", FAIL, "amphora-agent.conf", write("/etc/octavia/amphora-agent.conf")),
    ("12", "leaks.agent", FAIL, "client_ca.pem", write("/etc/octavia/certs/client_ca.pem", "x")),
    ("12", "leaks.agent", FAIL, "0.pem", write("/var/lib/octavia/certs/0.pem", "x")),
    *(("12", "leaks.identity", FAIL, f"{kind}_key", write(f"/etc/ssh/ssh_host_{kind}_key", "x", 0o600))
        for kind in ("rsa", "dsa", "ecdsa", "ed25519")),
    ("12", "leaks.identity", FAIL, "machine-id", write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")),
    ("12", "leaks.identity", FAIL, "dbus", write("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")),
    ("12", "leaks.cloud-init", FAIL, "ran in this image", write("/var/lib/cloud/data/instance-id", "i-1\n")),
    # 13: no firewall
    ("13", "packages.unwanted", FAIL, "firewalld", package("firewalld")),
    ("13", "services.background", FAIL, "firewalld.service", both(
        write("/usr/sbin/firewalld", "", 0o755), link(wanted_by("firewalld.service"), "/lib/systemd/system/f"))),
    # 14: accounts
    ("14", "configuration.accounts", FAIL, "root has a password", write("/etc/shadow", "root:$y$j9T$x$y:1::::::\n")),
    ("14", "configuration.accounts", FAIL, "empty password", write("/etc/shadow", "root::1::::::\n")),
    ("14", "configuration.accounts", FAIL, "no /etc/shadow", remove("/etc/shadow")),
    ("14", "configuration.accounts", FAIL, "eve has an empty password in", write("/etc/passwd", "eve::1:1::/:/bin\n")),
    ("14", "configuration.accounts", FAIL, "eve has a password in", write("/etc/passwd", "eve:$6$x:1:1::/:/bin/sh\n")),
    # warnings
    ("w", "packages.programs", WARN, "SR-IOV", both(
        without_program("nft"), *(write(f"/usr/sbin/{name}", "", 0o755) for name in ("iptables", "ip6tables")))),
    *(("w", "packages.unwanted", WARN, name, package(name))
        for name in ("gcc", "gcc-14", "g++", "make", "git", "build-essential", "python3-dev", "libssl-dev", "x-devel")),
    ("w", "packages.repositories", WARN, "sources.list",
        write("/etc/apt/sources.list", "deb [trusted=yes] http://m/ x y\n")),
    ("w", "packages.repositories", WARN, "a.list",
        write("/etc/apt/sources.list.d/a.list", "deb [ arch=amd64 allow-insecure=yes ] http://m/ x y\n")),
    ("w", "packages.repositories", WARN, "debian.sources",
        append("/etc/apt/sources.list.d/debian.sources", "Trusted: yes\n")),
    ("w", "packages.repositories", WARN, "95insecure",
        write("/etc/apt/apt.conf.d/95insecure", 'APT::Get::AllowUnauthenticated "true";\n')),
    ("w", "packages.repositories", WARN, "96insecure",
        write("/etc/apt/apt.conf.d/96insecure", 'Acquire { AllowInsecureRepositories "1"; };\n')),
    ("w", "packages.repositories", WARN, "packages of x",
        write("/etc/yum.repos.d/x.repo", "[x]\nname=x\nbaseurl=http://m/\ngpgcheck=0\n")),
    ("w", "packages.repositories", WARN, "packages of main", write("/etc/dnf/dnf.conf", "[main]\ngpgcheck=False\n")),
    ("w", "services.background", WARN, "dnf-makecache.timer",
        link(wanted_by("dnf-makecache.timer", "timers.target"), "/usr/lib/systemd/system/dnf-makecache.timer")),
    ("w", "configuration.resolver", FAIL, "no nameserver", write("/etc/resolv.conf")),
    ("w", "configuration.resolver", FAIL, "does not exist", remove("/etc/resolv.conf")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "identifier", "result", "words", "spoil"), CLAUSES, ids=[f"{c[0]}-{c[1]}-{c[3]}" for c in CLAUSES]
)
def test_each_clause(number: str, identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")[identifier]
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings if finding.result is result)


GRUB = "/boot/grub/grub.cfg"
INITRD = f"/boot/initrd.img-{KERNEL}"
DISK_CLAUSES: list[Clause] = [
    # 8: kernel and modules
    ("8", "boot.config", FAIL, "names a kernel", remove(GRUB)),
    ("8", "kernel.file", FAIL, "does not exist", remove(f"/boot/vmlinuz-{KERNEL}")),
    ("8", "kernel.file", FAIL, "no Linux kernel", write(f"/boot/vmlinuz-{KERNEL}", "#!/bin/sh\n")),
    ("8", "kernel.initramfs", FAIL, "does not exist", remove(INITRD)),
    ("8", "kernel.initramfs", FAIL, "no initramfs", write(INITRD, "#!/bin/sh\n")),
    ("8", "kernel.modules-directory", FAIL, "does not exist", remove(f"/usr/lib/modules/{KERNEL}")),
    ("8", "kernel.modules-directory", FAIL, "modules.dep", remove(f"/usr/lib/modules/{KERNEL}/modules.dep")),
    *(("8", "kernel.modules", FAIL, f"no module {name.replace('-', '_')}",
        replace(f"/usr/lib/modules/{KERNEL}/modules.dep", f"/{name}.ko", f"/no_{name}.ko")) for name in MODULES),
    ("8", "kernel.modules", FAIL, f"not there: /lib/modules/{KERNEL}/kernel/drivers/{MODULES[0]}.ko.xz",
        remove(f"/usr/lib/modules/{KERNEL}/kernel/drivers/{MODULES[0]}.ko.xz")),
    ("8", "kernel.modules", FAIL, f"not there: /lib/modules/{KERNEL}/kernel/lib/x.ko.xz",
        remove(f"/usr/lib/modules/{KERNEL}/kernel/lib/x.ko.xz")),
    *(("w", "kernel.sriov", INFO, f"{name} (",
        replace(f"/usr/lib/modules/{KERNEL}/modules.dep", f"/{name}.ko", f"/no_{name}.ko")) for name in FUNCTIONS),
    ("8", "kernel.modules", FAIL, "no module virtio_blk", remove(f"/usr/lib/modules/{KERNEL}/modules.builtin")),
    # 11: the root filesystem
    ("11", "boot.fstab", FAIL, "LABEL=other on /", write("/etc/fstab", "LABEL=other / ext4 defaults 0 1\n")),
    ("11", "boot.fstab", FAIL, "the root is xfs", write("/etc/fstab", "LABEL=cloudimg-rootfs / xfs defaults 0 1\n")),
    ("11", "boot.root", FAIL, "LABEL=other is not", replace(GRUB, "root=LABEL=cloudimg-rootfs", "root=LABEL=other")),
    ("11", "boot.root", FAIL, "no root=", replace(GRUB, "root=LABEL=cloudimg-rootfs", "")),
    ("11", "boot.search", FAIL, "not on this disk", replace(GRUB, UUID, UUID.replace("1", "9"))),
    # 7: cloud-init again
    ("7", "boot.command-line", FAIL, "cloud-init=disabled", replace(GRUB, " ro ", " ro cloud-init=disabled ")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "identifier", "result", "words", "spoil"),
    DISK_CLAUSES,
    ids=[f"{c[0]}-{c[1]}-{c[3]}" for c in DISK_CLAUSES],
)
def test_each_clause_of_a_disk(
    number: str, identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path
) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_disk(tree, tmp_path / "image.tar", identifier)
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings if finding.result is result)


def test_the_clauses_of_a_disk_hold_for_a_complete_amphora(tmp_path: Path) -> None:
    for identifier in {clause[1] for clause in DISK_CLAUSES} - {"kernel.initramfs"}:
        assert check_disk(amphora(), tmp_path / "image.tar", identifier).result is PASS, identifier


@pytest.mark.parametrize(
    ("identifier", "result", "words", "expected", "size", "free"),
    [
        ("image.size", FAIL, "expected 2 GiB", Expectations(virtual_size=2 * GIB), 3 * GIB, GIB),
        ("image.size", WARN, "not a whole number", Expectations(), 3 * GIB - 512, GIB),
        ("image.size", PASS, "2 GiB", Expectations(virtual_size=2 * GIB), 2 * GIB, GIB),
        ("disk.space", WARN, "100 MiB free", Expectations(), 2 * GIB, 100 << 20),
        ("disk.space", PASS, "1024 MiB free", Expectations(), 2 * GIB, GIB),
    ],
)
def test_size_and_space(  # clause 15
    identifier: str, result: Result, words: str, expected: Expectations, size: int, free: int, tmp_path: Path
) -> None:
    outcome = check_disk(amphora(), tmp_path / "image.tar", identifier, expected, size=size, free=free)
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings if finding.result is result)


LOADER = ("/efi/boot/bootx64.efi", "/efi/boot/grubx64.efi", "/efi/debian/grub.cfg")


def test_a_loader_without_its_configuration(tmp_path: Path) -> None:
    """The signed GRUB on the EFI system partition has no other way to find the root."""
    right = check_disk(amphora(), tmp_path / "image.tar", "boot.efi", esp=LOADER)
    wrong = check_disk(amphora(), tmp_path / "image.tar", "boot.efi", esp=LOADER[:2])
    assert (right.result, wrong.result) == (PASS, FAIL)
    assert "no grub.cfg" in wrong.findings[0].detail
