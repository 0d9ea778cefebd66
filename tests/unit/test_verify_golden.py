"""What installers, packer and hardening roles leave in an image, and what of it is right: one defect at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_spoils import Spoil, append, both, chmod, link, nothing, replace, wanted_by, write
from verify_tree import KERNEL, UNITS, amphora, check_disk, check_tar

from amphora_mkimage.verify.result import Result

FAIL, WARN, PASS = Result.FAIL, Result.WARN, Result.PASS
CFG = "/etc/cloud/cloud.cfg.d/99-installer.cfg"
MODPROBE = "/etc/modprobe.d/hardening.conf"
SYSCTL = "/etc/sysctl.d/99-zz-hardening.conf"
GRUB = "/boot/grub/grub.cfg"
SYSTEM = "/usr/lib/systemd/system"
STATIC = "[Match]\nName=ens3\n[Network]\nAddress=192.0.2.7/24\n"
MODULES = (
    "cloud_init_modules: [ write-files, growpart, resizefs, users-groups, ssh ]\n"
    "cloud_config_modules:\n  - runcmd\ncloud_final_modules:\n- scripts-user\n"
)

CASES: list[tuple[str, Result, str, Spoil]] = [
    # cloud-init
    *(("configuration.cloud-init", FAIL, "turns cloud-init's network off", write(CFG, text)) for text in (
        "network: {config: disabled}\n", "network:\n  config: disabled\n", '{"network": {"config": "disabled"}}\n',
        '"network": {config: disabled}  # by the installer\n')),
    ("configuration.cloud-init", FAIL, f"{CFG} has a network of its own",
        write(CFG, "network:\n  version: 2\n  ethernets: {ens3: {dhcp4: true}}\n")),
    ("configuration.cloud-init", PASS, "", write(CFG, "# network: {config: disabled}\nlocale: C\n")),
    ("configuration.cloud-init", PASS, "", write(CFG, "system_info:\n  network: {renderers: [netplan]}\n")),
    ("configuration.cloud-init", PASS, "", both(
        write(CFG, "network: {config: disabled}\n"), write("/etc/cloud/cloud.cfg.d/zz.cfg", "network:\n"))),
    ("configuration.cloud-init", FAIL, "data source NoCloud",
        write("/etc/cloud/ds-identify.cfg", "datasource: NoCloud\n")),
    ("configuration.cloud-init", PASS, "", write("/etc/cloud/ds-identify.cfg", "datasource: ConfigDrive\n")),
    ("configuration.cloud-init", PASS, "", append("/etc/cloud/cloud.cfg", MODULES)),
    ("configuration.cloud-init", FAIL, "write_files",
        append("/etc/cloud/cloud.cfg", MODULES.replace("write-files, ", ""))),
    *(("configuration.cloud-init", WARN, name.replace("-", "_"),
        append("/etc/cloud/cloud.cfg", MODULES.replace(name, "locale")))
        for name in ("growpart", "resizefs", "users-groups", "ssh", "runcmd", "scripts-user")),
    ("configuration.cloud-init", FAIL, "not in /etc/cloud/cloud.cfg.d/99-installer.cfg",
        both(append("/etc/cloud/cloud.cfg", "cloud_init_modules: [ write-files ]\n"),
            write(CFG, "cloud_init_modules: [ ssh ]\n"))),
    ("configuration.cloud-init", WARN, "growpart off", write(CFG, "growpart:\n  mode: 'off'\n")),
    ("configuration.cloud-init", WARN, "resize_rootfs off", write(CFG, "resize_rootfs: false\n")),
    # modules of the kernel
    *(("configuration.modprobe", FAIL, f"{MODPROBE} blocks {name}", write(MODPROBE, f"install {name} /bin/true\n"))
        for name in ("brd", "dm_crypt", "virtio_net", "isofs", "nf_tables")),
    ("configuration.modprobe", FAIL, "blocks dm_crypt", write(MODPROBE, "install dm-crypt /bin/false\n")),
    ("configuration.modprobe", WARN, "blocks virtio_net", write(MODPROBE, "blacklist virtio-net\n")),
    ("configuration.modprobe", WARN, "sctp, needed for SCTP listeners", write(MODPROBE, "install sctp /bin/true\n")),
    ("configuration.modprobe", WARN, "blocks ip_vs", write(MODPROBE, "blacklist ip_vs\n")),
    ("configuration.modprobe", WARN, "blocks vfat", write("/usr/lib/modprobe.d/cis.conf", "install vfat /bin/true\n")),
    ("configuration.modprobe", PASS, "", write(MODPROBE, "install cramfs /bin/true\n# install brd /bin/true\n")),
    ("configuration.modprobe", PASS, "",
        write(MODPROBE, "install ip_vs /sbin/modprobe --ignore-install ip_vs && /bin/true\noptions brd rd_nr=1\n")),
    ("configuration.modprobe", PASS, "",  # shadowed
        both(write("/usr/lib/modprobe.d/a.conf", "blacklist brd\n"), write("/etc/modprobe.d/a.conf", ""))),
    # kernel settings
    ("configuration.unwanted-sysctl", WARN, f"{SYSCTL} sets net.ipv6.conf.all.disable_ipv6",
        write(SYSCTL, "net.ipv6.conf.all.disable_ipv6=1\n")),
    ("configuration.unwanted-sysctl", WARN, "rp_filter", write(SYSCTL, "net/ipv4/conf/default/rp_filter = 1\n")),
    ("configuration.unwanted-sysctl", Result.INFO, "50-redhat.conf sets",  # systemd of Red Hat's family
        write("/usr/lib/sysctl.d/50-redhat.conf", "net.ipv4.conf.default.rp_filter=1\n-net.ipv4.conf.all.rp_filter\n")),
    ("configuration.unwanted-sysctl", WARN, "/etc/sysctl.conf sets",
        append("/etc/sysctl.conf", "net.ipv4.conf.all.rp_filter = 1\n")),
    ("configuration.unwanted-sysctl", FAIL, "modules_disabled", write(SYSCTL, "kernel.modules_disabled = 1\n")),
    ("configuration.unwanted-sysctl", FAIL, "net_namespaces", write(SYSCTL, "user.max_net_namespaces = 0\n")),
    ("configuration.unwanted-sysctl", PASS, "", write(SYSCTL, "net.ipv4.conf.all.rp_filter = 2\n")),
    ("configuration.unwanted-sysctl", PASS, "", both(  # a later one takes precedence
        write(SYSCTL, "kernel.modules_disabled=1\n"), write("/etc/sysctl.d/zz.conf", "kernel.modules_disabled=0\n"))),
    # interfaces
    *(("configuration.interfaces", WARN, path, write(path, text)) for path, text in (
        ("/etc/network/interfaces.d/50-static", "auto ens3\niface ens3 inet dhcp\n"),
        ("/etc/netplan/00-installer-config.yaml", "network: {version: 2}\n"),
        ("/etc/systemd/network/10-static.network", STATIC),
        ("/etc/NetworkManager/system-connections/wired.nmconnection", "[connection]\nid=wired\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-ens3", "DEVICE=ens3\nONBOOT=yes\n"))),
    ("configuration.interfaces", PASS, "", both(
        write("/etc/network/interfaces.d/lo", "auto lo\niface lo inet loopback\n"),
        write("/etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\nONBOOT=yes\n"),
        write("/etc/systemd/network/99-default.link", "[Link]\nNamePolicy=kernel\n"))),
    # firewalls
    ("services.firewall", FAIL, "nftables.service loads /etc/nftables.conf", both(
        link(wanted_by("nftables.service", "sysinit.target"), "/usr/lib/systemd/system/nftables.service"),
        write("/etc/nftables.conf", "table inet f {\nchain i {\ntype filter hook input priority 0; policy drop;\n"))),
    ("services.firewall", PASS, "", write("/etc/nftables.conf", "type filter hook input priority 0; policy drop;\n")),
    ("services.firewall", PASS, "", both(
        link(wanted_by("nftables.service", "sysinit.target"), "/usr/lib/systemd/system/nftables.service"),
        write("/etc/nftables.conf", "chain i { type filter hook input priority filter; }\n"))),
    ("services.firewall", PASS, "", both(
        link(wanted_by("nftables.service", "sysinit.target"), "/usr/lib/systemd/system/nftables.service"),
        write("/etc/nftables.conf", "hook input priority 0; policy drop; tcp dport { 22, 9443 } accept;\n"))),
    ("services.firewall", FAIL, "rules.v4", both(
        link(wanted_by("netfilter-persistent.service"), "/lib/systemd/system/netfilter-persistent.service"),
        write("/etc/iptables/rules.v4", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"))),
    ("services.firewall", FAIL, "/etc/sysconfig/iptables", both(
        link(wanted_by("iptables.service"), "/usr/lib/systemd/system/iptables.service"),
        write("/etc/sysconfig/iptables", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with x\n"))),
    ("services.audit", WARN, "disk_full_action = HALT", write("/etc/audit/auditd.conf", "disk_full_action = HALT\n")),
    ("services.audit", WARN, "-f 2", write("/etc/audit/rules.d/99-finalize.rules", "-f 2\n-e 2\n")),
    ("services.audit", PASS, "", write("/etc/audit/auditd.conf", "disk_full_action = SUSPEND\n")),
    # units
    *(("services.masked", FAIL, unit, link(f"/etc/systemd/system/{unit}", "/dev/null"))
        for unit in ("systemd-udevd.service", "network-online.target", "cloud-config.target", "rsyslog.service")),
    ("services.masked", FAIL, "systemd-sysctl.service", write("/etc/systemd/system/systemd-sysctl.service")),
    ("services.masked", PASS, "", link("/etc/systemd/system/ctrl-alt-del.target", "/dev/null")),
    *(("services.cloud-init", FAIL, unit if "network" not in unit else "network stage",
        link(f"/etc/systemd/system/{unit}", "/dev/null")) for unit in UNITS if unit.startswith("cloud")),
    # other disks
    ("boot.other-disks", FAIL, "opens data on UUID=2222", write("/etc/crypttab", "data UUID=2222 none luks\n")),
    ("boot.other-disks", PASS, "", write("/etc/crypttab", "# <target>\ndata UUID=2222 none luks,nofail\n")),
    ("boot.other-disks", WARN, "conf.d/resume resumes from UUID=1111",
        write("/etc/initramfs-tools/conf.d/resume", "RESUME=UUID=1111\n")),
    ("boot.other-disks", PASS, "", write("/etc/initramfs-tools/conf.d/resume", "RESUME=none\n")),
    ("boot.other-disks", WARN, "grub.cfg resumes from UUID=1111", replace(GRUB, " ro ", " ro resume=UUID=1111 ")),
    ("boot.other-disks", FAIL, "srv.mount mounts /dev/disk/by-uuid/3333", both(
        write("/etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/disk/by-uuid/3333\nWhere=/srv\n"),
        link(wanted_by("srv.mount", "local-fs.target"), "/etc/systemd/system/srv.mount"))),
    ("boot.other-disks", PASS, "", both(
        write("/etc/systemd/system/tmp.mount", "[Mount]\nWhat=tmpfs\nWhere=/tmp\n"),
        link(wanted_by("tmp.mount", "local-fs.target"), "/etc/systemd/system/tmp.mount"))),
    # who may write
    *(("agent.writable", FAIL, f"write {path}", spoil) for path, spoil in (
        ("/etc/octavia", chmod("/etc/octavia", 0o777)),
        ("/etc/octavia", chmod("/etc/octavia", 0o1777)),
        ("/var/lib/octavia/ping-wrapper.sh", chmod("/var/lib/octavia/ping-wrapper.sh", 0o777)),
        ("/etc/haproxy", lambda tree: tree.mkdir("/etc/haproxy", 0o777)),
        ("/etc/systemd/system", lambda tree: tree.mkdir("/etc/systemd/system", 0o777)),
        (f"{SYSTEM}/amphora-agent.service", chmod(f"{SYSTEM}/amphora-agent.service", 0o666)),
        ("/usr/bin", chmod("/usr/bin", 0o777)),
        ("/usr/local/bin/amphora-agent", chmod("/usr/local/bin/amphora-agent", 0o777)))),
    ("agent.writable", PASS, "", nothing),
]  # fmt: skip


@pytest.mark.parametrize(
    ("identifier", "result", "words", "spoil"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_each_kind(identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")[identifier]
    assert outcome.result is result, outcome.findings
    assert not words or any(words in finding.detail for finding in outcome.findings if finding.result is result)


SUPERUSERS = 'set superusers="root"\npassword_pbkdf2 root grub.pbkdf2.sha512.10000.x\n'
REDHAT = f'if [ -n "${{GRUB2_PASSWORD}}" ]; then\n{SUPERUSERS}fi\n'
UNRESTRICTED = replace(GRUB, "--class debian", "--class debian --unrestricted")
ON_DISK: list[tuple[str, Result, str, Spoil]] = [
    ("boot.password", FAIL, "waits for a password", append(GRUB, SUPERUSERS)),
    ("boot.password", PASS, "", both(append(GRUB, SUPERUSERS), UNRESTRICTED)),
    ("boot.password", PASS, "", append(GRUB, 'set superusers=""\n# set superusers="root"\n')),
    ("boot.password", PASS, "", append(GRUB, REDHAT)),
    ("boot.password", FAIL, "waits for a password",
        both(append(GRUB, REDHAT), write("/boot/grub2/user.cfg", "GRUB2_PASSWORD=grub.pbkdf2.sha512.10000.x\n"))),
    ("boot.other-disks", PASS, "", write("/etc/crypttab", "data LABEL=cloudimg-rootfs none luks\n")),
    ("boot.other-disks", PASS, "",
        write("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/disk/by-label/cloudimg-rootfs\n")),
    *(("boot.command-line", result, text.partition("=")[0], replace(GRUB, " ro ", f" ro {text} ")) for result, text in (
        (FAIL, "network-config=disabled"), (FAIL, "ds=nocloud"), (FAIL, "systemd.unit=rescue.target"),
        (FAIL, "init=/bin/bash"), (FAIL, "emergency"), (FAIL, "modprobe.blacklist=virtio_net"),
        (WARN, "ipv6.disable=1"))),
    ("boot.command-line", PASS, "", replace(GRUB, " ro ", " ro audit=1 apparmor=1 systemd.unit=multi-user.target ")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("identifier", "result", "words", "spoil"), ON_DISK, ids=[f"{c[0]}-{n}" for n, c in enumerate(ON_DISK)]
)
def test_each_kind_on_a_disk(identifier: str, result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_disk(tree, tmp_path / "image.tar", identifier)
    assert outcome.result is result, outcome.findings
    assert not words or any(words in finding.detail for finding in outcome.findings if finding.result is result)


def test_an_entry_that_is_no_default_may_ask(tmp_path: Path) -> None:
    """GRUB asks before what is started, not before what is listed."""
    tree = amphora()
    UNRESTRICTED(tree)
    append(GRUB, SUPERUSERS)(tree)
    append(GRUB, f"menuentry 'other' {{\nlinux /boot/vmlinuz-{KERNEL} root=LABEL=cloudimg-rootfs\n}}\n")(tree)
    assert check_disk(tree, tmp_path / "image.tar", "boot.password").result is PASS
