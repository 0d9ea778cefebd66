"""What keeps a machine from starting though its disk is whole: a password, or another disk that is waited for.

Hardening roles, installers and packer leave it behind in images that others are made from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage.verify import fstab
from amphora_mkimage.verify.boot_config import GrubConfig
from amphora_mkimage.verify.result import Check, Finding, fail, not_applicable, warn
from amphora_mkimage.verify.subject import Subject

#: Where grub2-set-password(8) of Red Hat's family keeps it; its grub.cfg asks for nothing while there is none.
_USER_CONFIGS = ("/boot/grub2/user.cfg", "/boot/grub/user.cfg")
_RESUME_FILES = "/etc/initramfs-tools"
_UNITS = "/etc/systemd/system"
#: Values of RESUME that name no device (initramfs.conf(5)).
_NO_RESUME = ("", "none", "auto")


def password(subject: Subject) -> Iterator[Finding]:
    """Check that the entry that is started by default is for everybody (GRUB manual, "Security")."""
    if not subject.grub_configs:
        yield not_applicable("no GRUB")
    if not subject.boot_entries or subject.boot_entries[0].unrestricted:
        return
    for config in subject.grub_configs:
        if _asks(subject, config):
            yield fail(
                f"{config.source} sets superusers, and the default entry is not --unrestricted: each start waits for"
                " a password",
                "remove GRUB's users (a file in /etc/grub.d) in the image's build",
            )


def _asks(subject: Subject, config: GrubConfig) -> bool:
    if config.superusers != "user.cfg":
        return bool(config.superusers)
    return any(re.search(r"^\s*GRUB2_PASSWORD=\S", subject.tree.text(p), re.MULTILINE) for p in _USER_CONFIGS)


def other_disks(subject: Subject) -> Iterator[Finding]:
    """Look for disks that are waited for, or asked a password of, and are not in the image."""
    for line in subject.lines("/etc/crypttab"):
        name, device, *rest = [*line.split(), "", ""][:4]
        options = (rest[1] if len(rest) > 1 else "").split(",")
        if not {"noauto", "nofail"}.intersection(options) and not _is_here(subject, device):
            yield fail(f"/etc/crypttab opens {name} on {device}, which is not in the image", "remove the line")
    for path, value in _resume_devices(subject):
        if not _is_here(subject, value):
            yield warn(
                f"{path} resumes from {value}, which is not in the image: the initramfs waits for it", "RESUME=none"
            )
    for pattern in ("*.mount", "*.swap"):
        for path in subject.drop_ins(_UNITS, pattern):
            what = re.findall(r"^What\s*=\s*(\S+)", subject.tree.text(path), re.MULTILINE)[-1:]
            enabled = path.rpartition("/")[2] in subject.enabled_units
            if enabled and what and _names_disk(what[0]) and not _is_here(subject, what[0]):
                yield fail(f"{path} mounts {what[0]}, which is not in the image: systemd waits for it", "remove it")


def _resume_devices(subject: Subject) -> Iterator[tuple[str, str]]:
    for path in [f"{_RESUME_FILES}/initramfs.conf", *subject.drop_ins(f"{_RESUME_FILES}/conf.d", "*")]:
        values = re.findall(r"^\s*RESUME=[\"']?([^\s\"']*)", subject.tree.text(path), re.MULTILINE)
        if values and values[-1] not in _NO_RESUME:
            yield path, values[-1]
    for entry in subject.boot_entries[:1]:
        value = entry.option("resume")
        if value and value not in _NO_RESUME:
            yield entry.source, value


def _names_disk(spec: str) -> bool:
    return spec.startswith(("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="))


def _is_here(subject: Subject, spec: str) -> bool:
    """Tell whether a filesystem or device of the image is meant; of a tar nobody knows its disk."""
    by = re.fullmatch(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", spec)
    named = f"{by[1].upper()}={by[2]}" if by else spec
    filesystems = subject.disk.filesystems if subject.disk else []
    return any(fstab.names(named, filesystem.facts, filesystem.device) for filesystem in filesystems)


GROUP = "boot"
CHECKS = (
    Check("boot.password", GROUP, "starts without a password", password, disk=True, in_build=True),
    Check("boot.other-disks", GROUP, "waits for no other disk", other_disks),
)
