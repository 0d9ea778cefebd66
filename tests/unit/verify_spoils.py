"""Ways to spoil a tree, one defect each, for the tests of verify."""

from __future__ import annotations

from collections.abc import Callable

from verify_tree import TreeBuilder

Spoil = Callable[[TreeBuilder], None]
APPARMOR = "/etc/apparmor.d/usr.sbin.rsyslogd"
RULE = "/run/rsyslog/octavia/log rwk,\n"


def nothing(tree: TreeBuilder) -> None:
    """Leave it complete."""


def remove(*paths: str) -> Spoil:
    def spoil(tree: TreeBuilder) -> None:
        for path in paths:
            tree.remove(path)

    return spoil


def without_program(name: str) -> Spoil:
    def spoil(tree: TreeBuilder) -> None:
        found = [path for path in (f"/usr/bin/{name}", f"/usr/sbin/{name}") if path in tree.files]
        remove(*found)(tree)
        assert found

    return spoil


def write(path: str, content: str = "", mode: int = 0o644) -> Spoil:
    return lambda tree: tree.write(path, content, mode)


def append(path: str, content: str) -> Spoil:
    return lambda tree: tree.append(path, content)


def link(path: str, target: str) -> Spoil:
    return lambda tree: tree.link(path, target)


def replace(path: str, old: str, new: str) -> Spoil:
    return lambda tree: tree.replace(path, old, new)


def chmod(path: str, mode: int) -> Spoil:
    return lambda tree: tree.chmod(path, mode)


def both(*spoils: Spoil) -> Spoil:
    def spoil(tree: TreeBuilder) -> None:
        for part in spoils:
            part(tree)

    return spoil


def package(name: str) -> Spoil:
    return append(
        "/var/lib/dpkg/status",
        f"\nPackage: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
    )


def no_package(name: str) -> Spoil:
    return replace("/var/lib/dpkg/status", f"Package: {name}\n", "Package: x\n")


def wanted_by(unit: str, target: str = "multi-user.target") -> str:
    return f"/etc/systemd/system/{target}.wants/{unit}"


def distribution(name: str) -> Spoil:
    return replace("/usr/lib/os-release", "ID=debian", f"ID={name}")


def confined(flags: str, rule: str) -> Spoil:
    """AppArmor with a profile of rsyslog's."""
    return both(
        write("/usr/sbin/apparmor_parser", "", 0o755),
        write(APPARMOR, f"profile rsyslogd /usr/sbin/rsyslogd {flags}{{\n  include if exists <rsyslog.d>\n}}\n"),
        write("/etc/apparmor.d/rsyslog.d/octavia", rule),
    )
