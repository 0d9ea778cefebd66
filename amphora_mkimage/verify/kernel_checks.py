"""The kernel that the bootloader names: a real one, with an initramfs and modules of the same version."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from amphora_mkimage.verify import kernel_file
from amphora_mkimage.verify.result import Check, Finding, fail, not_applicable, passed, some, warn
from amphora_mkimage.verify.subject import Subject
from amphora_mkimage.verify.tree import TreeError

_DECOMPRESSORS = {
    "cpio": "cat",
    "gzip": "gzip -dc",
    "xz": "xz -dc",
    "zstd": "zstd -dc",
    "bzip2": "bzip2 -dc",
    "lzma": "xz -dc --format=lzma",
    "lzop": "lzop -dc",
    "lz4": "lz4 -dc",
}

#: What an amphora loads, with what for; alternatives are separated by "|".
_MODULES = {
    "brd": "the RAM disk for certificates",
    "dm_crypt": "its encryption",
    "ip_vs": "UDP and SCTP listeners",
    "ip_vs_rr": "their algorithm ROUND_ROBIN",
    "ip_vs_lc": "their algorithm LEAST_CONNECTIONS",
    "ip_vs_sh": "their algorithm SOURCE_IP",
    "nf_conntrack": "masquerading",
    "nft_masq": "masquerading",
    "nft_nat": "masquerading",
    "virtio_net": "the network",
    "virtio_blk": "disks",
    "virtio_scsi": "disks where Nova is told to use SCSI",
    "isofs": "config drives",
    "vfat": "config drives",
    "nls_cp437": "config drives on vfat",
    "nls_ascii|nls_iso8859_1|nls_utf8": "config drives on vfat",
}
_NFTABLES = ("nft_masq", "nft_nat")


def kernels(subject: Subject) -> Iterator[Finding]:
    """Check that each kernel that the bootloader names is one."""
    for path in dict.fromkeys(entry.kernel for entry in subject.boot_entries):
        try:
            kind, version = kernel_file.kernel_kind(
                subject.tree.read(subject.boot_path(path), size=kernel_file.HEAD_BYTES)
            )
        except TreeError as error:
            yield fail(f"the bootloader names {path}: {error}", "run update-grub in the image's build")
            continue
        if not kind:
            yield fail(f"{path} is no Linux kernel", "build the image again")
        elif version and version not in path:
            yield warn(f"{path} is a kernel {version}")
        else:
            yield passed(f"{kind} {version}".strip())
    if not subject.boot_entries:
        yield fail("the bootloader names no kernel")


def initramfs(subject: Subject) -> Iterator[Finding]:
    """Check that each kernel's initramfs is one, and for that version."""
    if not subject.boot_entries:
        yield not_applicable("the bootloader names no kernel")
    done = set()
    for entry in subject.boot_entries:
        version = subject.version_of(entry)
        if not entry.initrds and (entry.kernel, "") not in done:
            done.add((entry.kernel, ""))
            yield warn(f"no initramfs for {entry.kernel}: its root's drivers must be built in")
        for path in entry.initrds:
            if (entry.kernel, path) not in done:
                done.add((entry.kernel, path))
                yield from _initramfs(subject, path, version)


def _initramfs(subject: Subject, path: str, version: str) -> Iterator[Finding]:
    place = subject.boot_path(path)
    try:
        head = subject.tree.read(place, size=16)
    except TreeError as error:
        yield fail(f"the bootloader names {path}: {error}", "generate it, and run update-grub in the image's build")
        return
    if not kernel_file.compression(head):
        yield fail(f"{path} is no initramfs", "generate it again")
        return
    if re.search(r"(?:ucode|microcode)", posixpath.basename(path)):
        return
    try:
        found = _module_versions(subject, place)
    except TreeError as error:
        yield fail(f"{path} cannot be read: {error}")
        return
    if found is None:
        yield warn(f"{path}: its content could not be listed here")
    elif found and version not in found:
        yield fail(f"{path} has modules for {', '.join(sorted(found))}, but the kernel is {version}")
    elif not found and version not in path:
        yield fail(f"{path} is not for the kernel {version}")
    else:
        yield passed(f"{path} is for {version}")


def _module_versions(subject: Subject, path: str) -> set[str] | None:
    """List the versions whose modules an initramfs has, None when it cannot be listed.

    Done by cpio in the appliance, on the real path: no link of the guest's is followed there.
    """
    found = subject.tree.resolve(path)
    if found is None or subject.disk is None:
        return None
    real, entry = found
    segments = kernel_file.segments(lambda offset, size: subject.tree.read(real, offset=offset, size=size), entry.size)
    for offset, kind in segments:
        # The first name tells that it is a list at all; the first hit is enough, and ends the decompression.
        command = (
            f'tail -c +{offset + 1} "/sysroot$1" | {_DECOMPRESSORS[kind]} 2>/dev/null | cpio -it --quiet 2>/dev/null'
            r" | sed -nE '1p; \#(^|/)lib/modules/[^/]+#{s#^(.*/)?(lib/modules/[^/]+).*#\2#p;q}'"
        )
        _, printed = subject.disk.appliance.shell(command, real)
        names = printed.splitlines()
        if not names:
            return None
        versions = {name.removeprefix("lib/modules/") for name in names[1:]}
        if versions:
            return versions
    return set()


def module_directory(subject: Subject) -> Iterator[Finding]:
    """Check that each kernel has its modules."""
    if not subject.boot_entries:
        yield not_applicable("the bootloader names no kernel")
    for version in dict.fromkeys(subject.version_of(entry) for entry in subject.boot_entries):
        directory = f"/lib/modules/{version}"
        if not subject.tree.is_directory(directory):
            others = ", ".join(subject.kernel_versions) or "none"
            yield fail(f"{directory} does not exist (there: {others})", "install the kernel's package completely")
        elif not subject.tree.is_file(f"{directory}/modules.dep"):
            yield fail(f"{directory}/modules.dep does not exist", "run depmod in the image's build")
        else:
            yield passed(directory)


def modules(subject: Subject) -> Iterator[Finding]:
    """Check that the modules an amphora loads are there, as modules or built in."""
    versions = [subject.booted_version] if subject.booted_version else subject.kernel_versions[-1:]
    if not versions:
        yield fail("there is no kernel")
    for version in versions:
        known = known_modules(subject, version)
        for wanted, purpose in _MODULES.items():
            if subject.expected.nftables is False and wanted in _NFTABLES:
                continue
            found = [known[name] for name in wanted.split("|") if name in known]
            lost = [path for files in found for path in files if not subject.tree.is_file(path)]
            if lost:
                yield fail(f"modules.dep names files that are not there: {some(lost)}", "run depmod, or keep them")
            elif not found:
                name = wanted.replace("|", " or ")
                yield fail(f"kernel {version} has no module {name}, needed for {purpose}", "choose another kernel (-k)")
        yield passed(f"{len(known)} modules")


def known_modules(subject: Subject, version: str) -> dict[str, list[str]]:
    """Name the modules of a kernel as modprobe(8) does, with the files that each takes; none for what is built in."""
    directory = f"/lib/modules/{version}"
    known = {}
    for line in subject.tree.text(f"{directory}/modules.dep").splitlines():
        path, _, needs = line.partition(":")
        known[_module(path)] = [f"{directory}/{part}" for part in (path, *needs.split())]
    for path in subject.tree.text(f"{directory}/modules.builtin").splitlines():
        known[_module(path)] = []
    return known


def _module(path: str) -> str:
    return re.sub(r"\.ko(?:\.\w+)?$", "", posixpath.basename(path)).replace("-", "_")


GROUP = "boot"
CHECKS = (
    Check("kernel.file", GROUP, "kernels are kernels", kernels, disk=True, in_build=True),
    Check("kernel.initramfs", GROUP, "initramfs matches its kernel", initramfs, disk=True),
    Check("kernel.modules-directory", GROUP, "modules match the kernel", module_directory, disk=True, in_build=True),
    Check("kernel.modules", GROUP, "modules that an amphora loads", modules, disk=True, in_build=True),
)
