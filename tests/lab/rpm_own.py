"""The packages that Red Hat's distributions cut otherwise than Debian: kernel, GRUB, shim, release files, SELinux.

They are made in a tree of their own, from what Debian's packages hold, with the paths that the real ones have.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import rpm_source
from redhat import Distribution
from rpm_package import Package

FILES = rpm_source.FILES
_EFI_MODULES = """
    all_video boot btrfs cat chain configfile echo efi_gop ext2 fat gzio halt linux loadenv ls minicmd normal
    part_gpt part_msdos reboot regexp search search_fs_file search_fs_uuid search_label serial sleep terminal test
    true xfs zstd
"""


class Maker:
    """Makes packages in a tree.

    :param own: where their files go; must not exist
    :param dist: how their releases end
    """

    def __init__(self, own: Path, dist: str) -> None:
        self.own = own
        self.dist = dist
        self.packages: list[Package] = []
        own.mkdir()

    def add(self, name: str, version: str, *, requires: Iterable[str] = (), noarch: bool = False) -> Package:
        """Start a package."""
        package = Package(name, version, f"1{self.dist}", name, noarch)
        package.requires = {"filesystem", *requires}
        package.requires_first = {"filesystem"}
        self.packages.append(package)
        return package

    def put(
        self, package: Package, path: str, content: bytes | Path, *, mode: int = 0o644, config: bool = False
    ) -> None:
        """Add a file to a package."""
        target = self.own / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        target.chmod(mode)
        package.files.add(path)
        if config:
            package.config.add(path)

    def link(self, package: Package, path: str, target: str) -> None:
        """Add a symbolic link."""
        place = self.own / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        package.files.add(path)

    def directory(self, package: Package, path: str, mode: int = 0o755) -> None:
        """Add an empty directory."""
        (self.own / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (self.own / path.lstrip("/")).chmod(mode)
        package.files.add(path)

    def take(self, package: Package, directory: str, source: Path) -> None:
        """Add a whole directory."""
        target = self.own / directory.lstrip("/")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        package.files |= {f"{directory}/{path.relative_to(target)}" for path in target.rglob("*")} | {directory}


def kernel(maker: Maker, unpacked: Path) -> None:
    """Add the kernel's packages as Fedora lays them out: all below /usr/lib/modules; installing fills /boot."""
    modules = next((unpacked / "usr/lib/modules").iterdir())
    release = modules.name
    version = re.match(r"[\d.]+", release)[0]  # type: ignore[index]
    meta = maker.add("kernel", version, requires=["kernel-core", "kernel-modules-core", "kernel-modules"])
    core = maker.add("kernel-core", version, requires=["kernel-modules-core", "dracut", "systemd", "systemd-udev"])
    core.requires_first |= {"dracut", "systemd-udev", "kernel-modules-core", "grub2-common", "kmod"}
    core.requires |= core.requires_first
    parts = {
        "kernel-modules-core": maker.add("kernel-modules-core", version, requires=["kmod"]),
        "kernel-modules": maker.add("kernel-modules", version, requires=["kernel-modules-core"]),
    }
    place = f"/usr/lib/modules/{release}"
    for name, mode in (("vmlinuz", 0o755), ("System.map", 0o600), ("config", 0o644)):
        maker.put(core, f"{place}/{name}", unpacked / "boot" / f"{name}-{release}", mode=mode)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        maker.put(parts["kernel-modules-core"], f"{place}/{name}", modules / name)
    for path in sorted((modules / "kernel").rglob("*.ko*")):
        inside = path.relative_to(modules / "kernel")
        # Fedora keeps the rarer protocols apart, too: without kernel-modules there is no IPVS.
        part = "kernel-modules" if inside.parts[0] in ("net", "sound") else "kernel-modules-core"
        maker.put(parts[part], f"{place}/kernel/{inside}", path)
    for package in parts.values():
        package.scriptlets["posttrans"] = f"depmod -a {release}\n"
    core.scriptlets["posttrans"] = f"/usr/bin/kernel-install add {release} {place}/vmlinuz || exit $?\n"
    core.scriptlets["preun"] = f"/usr/bin/kernel-install remove {release} || exit $?\n"
    meta.provides.add("installonlypkg(kernel)")
    core.provides |= {"installonlypkg(kernel)", "kernel-uname-r"}


def grub(maker: Maker, tree: Path) -> None:
    """Add GRUB's tools under Red Hat's names; Debian's read /etc/default/grub.d, Red Hat's do not."""
    version = "2.12"
    common = maker.add("grub2-common", version, noarch=True)
    tools = maker.add("grub2-tools", version, requires=rpm_source.requires(tree, "grub-common", "grub2-common"))
    tools.requires.add("grub2-common")
    maker.add("grub2-pc", version, requires=["grub2-tools", "grub2-pc-modules"])
    for directory in ("/boot/grub2", "/boot/loader", "/boot/loader/entries"):
        maker.directory(common, directory, 0o700)
    maker.put(common, "/usr/lib/kernel/install.d/20-grub.install", FILES / "20-grub.install", mode=0o755)
    maker.put(common, "/etc/default/grub", FILES / "default-grub", config=True)
    for directory in ("usr/bin", "usr/sbin"):
        for path in sorted((tree / directory).glob("grub-*")):
            name = path.name.replace("grub-", "grub2-", 1)
            maker.put(tools, f"/{directory}/{name}", _renamed(path.read_bytes()), mode=0o755)
    for path in sorted((tree / "etc/grub.d").iterdir()):
        if path.name not in ("00_tuned", "05_debian_theme", "25_bli"):  # the first is tuned's
            content = _renamed(path.read_bytes())
            if path.name == "10_linux":
                first, _, rest = content.partition(b"\n")
                content = first + b"\n" + (FILES / "grub-blscfg.sh").read_bytes() + rest
            maker.put(tools, f"/etc/grub.d/{path.name}", content, mode=path.stat().st_mode & 0o777, config=True)
    setup = tree / "usr/lib/grub/i386-pc/grub-bios-setup"  # where Debian keeps it from PATH
    maker.put(tools, "/usr/sbin/grub2-bios-setup", setup, mode=0o755)
    library = (tree / "usr/share/grub/grub-mkconfig_lib").resolve()
    maker.put(tools, "/usr/share/grub/grub-mkconfig_lib", _renamed(library.read_bytes()))
    maker.put(tools, "/usr/share/grub/unicode.pf2", tree / "usr/share/grub/unicode.pf2")


def _renamed(content: bytes) -> bytes:
    """Let a script call the tools by Red Hat's names; a binary stays as it is."""
    if not content.startswith(b"#!") and b"\0" in content:
        return content
    content = re.sub(rb"\bgrub-(?!mkconfig_lib)(?=[a-z])", b"grub2-", content)
    content = re.sub(rb"/boot/grub\b", b"/boot/grub2", content)
    content = content.replace(b'"/@bootdirname@/@grubdirname@', b'"/boot/grub2')
    content = content.replace(b"${sysconfdir}/default/grub.d/", b"/nowhere/")
    return content.replace(b"export GRUB_DEFAULT", b"export GRUB_ENABLE_BLSCFG GRUB_DEFAULT")


def boot_loader(maker: Maker, tree: Path, unpacked: Path, distribution: Distribution) -> None:
    """Add what lies on the ESP: Debian's signed shim, and a GRUB of this vendor's prefix, unsigned."""
    vendor = f"/boot/efi/EFI/{distribution.vendor}"
    image = tree / "tmp/grubx64.efi"
    argv = ["chroot", str(tree), "grub-mkimage", "-O", "x86_64-efi", "-o", "/tmp/grubx64.efi"]
    subprocess.run([*argv, "-p", f"/EFI/{distribution.vendor}", *_EFI_MODULES.split()], check=True)
    efi = maker.add("grub2-efi-x64", "2.12", requires=["grub2-tools", "grub2-common"])
    maker.put(efi, f"{vendor}/grubx64.efi", image, mode=0o700)
    image.unlink()
    shim = maker.add("shim-x64", "15.8")
    for name, paths in {
        "shimx64": (f"{vendor}/shimx64.efi", f"{vendor}/shim.efi", "/boot/efi/EFI/BOOT/BOOTX64.EFI"),
        "mmx64": (f"{vendor}/mmx64.efi",),
        "fbx64": ("/boot/efi/EFI/BOOT/fbx64.efi",),
    }.items():
        for path in paths:
            maker.put(shim, path, unpacked / f"usr/lib/shim/{name}.efi.signed", mode=0o700)
    label = f"shimx64.efi,{distribution.name},,This is the boot entry for {distribution.name}\n"
    maker.put(shim, f"{vendor}/BOOTX64.CSV", label.encode("utf-16"))


def release(maker: Maker, distribution: Distribution, key: bytes) -> None:
    """Add who the system is, where its packages come from, and whose signature they have."""
    name = distribution.id
    keys = maker.add(f"{name}-gpg-keys", distribution.version, noarch=True)
    maker.put(keys, f"/etc/pki/rpm-gpg/{distribution.key_name}", key)
    repos = maker.add(f"{name}-repos", distribution.version, requires=[keys.name], noarch=True)
    for file in distribution.repo_files:
        maker.put(repos, f"/etc/yum.repos.d/{file}", FILES / "repos" / file, config=True)
    for variable, value in distribution.variables.items():
        maker.put(repos, f"/etc/dnf/vars/{variable}", f"{value}\n".encode(), config=True)
    package = maker.add(f"{name}-release", distribution.version, requires=[repos.name], noarch=True)
    package.provides = {
        "system-release",
        f"system-release({distribution.releasever})",
        f"system-release(releasever) = {distribution.releasever}",
        f"redhat-release = {distribution.version}",
    }
    os_release = {
        "NAME": distribution.name,
        "VERSION": distribution.pretty_name.removeprefix(f"{distribution.name} "),
        "ID": name,
        "ID_LIKE": "" if name == "fedora" else "rhel centos fedora",
        "VERSION_ID": distribution.version,
        "PLATFORM_ID": "platform:f44" if name == "fedora" else "platform:el10",
        "PRETTY_NAME": distribution.pretty_name,
    }
    text = "".join(f'{key}="{value}"\n' for key, value in os_release.items() if value)
    maker.put(package, "/usr/lib/os-release", text.encode())
    maker.link(package, "/etc/os-release", "../usr/lib/os-release")
    maker.put(package, f"/etc/{name}-release", f"{distribution.name} release {distribution.version}\n".encode())
    for link in ("redhat-release", "system-release"):
        maker.link(package, f"/etc/{link}", f"{name}-release")
    for preset in ("90-default.preset", "99-default-disable.preset"):
        maker.put(package, f"/usr/lib/systemd/system-preset/{preset}", FILES / preset)
    if name != "fedora":
        maker.put(package, "/etc/cloud/cloud.cfg.d/05-distribution.cfg", f"system_info:\n  distro: {name}\n".encode())


def selinux(maker: Maker) -> None:
    """Add a configuration and a few contexts; a policy that a kernel could load is not among them."""
    policy = maker.add("selinux-policy", "42.1", noarch=True)
    maker.put(policy, "/etc/selinux/config", FILES / "selinux-config", config=True)
    targeted = maker.add("selinux-policy-targeted", "42.1", requires=[policy.name], noarch=True)
    maker.put(targeted, "/etc/selinux/targeted/contexts/files/file_contexts", FILES / "file_contexts")
    generic = maker.add("dracut-config-generic", "106", requires=["dracut"], noarch=True)
    maker.put(generic, "/usr/lib/dracut/dracut.conf.d/02-generic-image.conf", b'hostonly="no"\n')
