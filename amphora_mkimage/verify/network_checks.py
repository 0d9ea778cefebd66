"""The management network: what cloud-init writes for it is carried out by programs that are there.

cloud-init picks the renderer when it runs (cloudinit/net/renderers.py), and depends on none of the programs that what
it writes calls. What fails there fails in silence: cloud-init ends its lines for ifupdown with "|| true".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from amphora_mkimage.verify.result import Check, Finding, fail, info, passed, some, warn
from amphora_mkimage.verify.subject import Subject

#: cloud-init's own order, without what no Linux has.
_BUILT_IN_ORDER = ("eni", "sysconfig", "netplan", "network-manager", "networkd")
_DHCP_CLIENTS = ("dhclient", "dhcpcd", "udhcpc")  # those that ifupdown knows and Debian has
_NETWORKD = "/usr/lib/systemd/systemd-networkd"
_LIBRARIES = "/usr/lib"
#: In YAML on one line in brackets, or an item a line.
_RENDERERS = r"^[ \t]+renderers:[ \t]*(?:\[([^\]]*)\]|\n((?:[ \t]*-[ \t]+\S+[ \t]*\n?)+))"
_HOOKS = "/etc/network/if-pre-up.d"


def _has_eni(subject: Subject) -> bool:
    tree = subject.tree
    programs = ("ifquery", "ifup", "ifdown")
    found = all(any(tree.is_executable(f"{d}/{name}") for d in ("/sbin", "/usr/sbin")) for name in programs)
    return found and tree.is_file("/etc/network/interfaces")


def _has_sysconfig(subject: Subject) -> bool:
    tree = subject.tree
    plugin = any(
        tree.is_file(f"{lib}/NetworkManager/{name}/libnm-settings-plugin-ifcfg-rh.so")
        for lib in ("/usr/lib64", "/usr/lib")
        for name in tree.listdir(f"{lib}/NetworkManager")
    )
    scripts = tree.is_file("/etc/sysconfig/network-scripts/network-functions") and subject.program("ifup") is not None
    return subject.family == "rpm" and (plugin or scripts)


#: When cloud-init takes a renderer, by its name in cloud.cfg.
_AVAILABLE: dict[str, Callable[[Subject], bool]] = {
    "eni": _has_eni,
    "sysconfig": _has_sysconfig,
    "netplan": lambda subject: subject.program("netplan") is not None,
    "network-manager": lambda subject: (
        subject.program("nmcli") is not None and "NetworkManager.service" in subject.enabled_units
    ),
    "networkd": lambda subject: subject.program("ip") is not None and subject.program("systemctl") is not None,
}


def chosen_renderer(subject: Subject) -> str:
    """Return the renderer that cloud-init will take in this image, "" when there is none."""
    order = [name for name in _order(subject) if name in _AVAILABLE]
    return next((name for name in order if _AVAILABLE[name](subject)), "")


def _order(subject: Subject) -> tuple[str, ...]:
    order = _BUILT_IN_ORDER
    for path in ["/etc/cloud/cloud.cfg", *subject.drop_ins("/etc/cloud/cloud.cfg.d", "*.cfg")]:
        text = subject.tree.text(path)
        match = re.search(_RENDERERS, text, re.MULTILINE)
        if match:
            order = tuple(re.findall(r"[a-z][a-z-]*", match[1] or match[2]))
    return order


def tools(subject: Subject) -> Iterator[Finding]:
    """Look for the programs that the chosen renderer's output calls."""
    renderer = chosen_renderer(subject)
    if not renderer:
        yield fail(f"cloud-init finds none of {some(list(_order(subject)))}: no interface is configured")
    elif renderer == "eni":
        yield from _tools_of_ifupdown(subject)
    elif renderer in ("netplan", "networkd"):
        manager = subject.program("NetworkManager") if renderer == "netplan" else None
        if not subject.tree.is_executable(_NETWORKD) and not manager:
            yield fail(f"cloud-init writes for {renderer}, and there is no systemd-networkd")
    elif not subject.program("NetworkManager") and not subject.program("ifup"):
        yield fail(f"cloud-init writes for {renderer}, and there is no NetworkManager")
    if renderer:
        yield passed(renderer)


def _tools_of_ifupdown(subject: Subject) -> Iterator[Finding]:
    if not any(subject.program(name) for name in _DHCP_CLIENTS):
        yield fail(f"ifupdown finds no DHCP client ({', '.join(_DHCP_CLIENTS)})", "install one")
    source = _eni_source(subject)
    if not source:
        yield info("cloud-init's eni.py was not found: what it writes for ifupdown is not known")
    elif '"post-up ip' not in source and "post-up route" in source and not subject.program("route"):
        yield fail(
            "cloud-init has ifupdown call route for gateways and host routes, and there is none: "
            "no default route where addresses are static",
            "install net-tools, or cloud-init 26.2 or later",
        )


def _eni_source(subject: Subject) -> str:
    """Read cloud-init's renderer for ifupdown; "" when it is not where packages put it."""
    tree = subject.tree
    versions = tree.listdir(_LIBRARIES, "python3*")
    places = [f"{_LIBRARIES}/{name}/{part}" for name in versions for part in ("dist-packages", "site-packages")]
    return next((text for place in places if (text := tree.text(f"{place}/cloudinit/net/eni.py"))), "")


def mtu(subject: Subject) -> Iterator[Finding]:
    """Check that the config drive's MTU is applied whatever gives the address."""
    if chosen_renderer(subject) != "eni":
        return
    hooks = [f"{_HOOKS}/{name}" for name in subject.tree.listdir(_HOOKS)]
    if not any(subject.tree.is_executable(path) and "IF_MTU" in subject.tree.text(path) for path in hooks):
        yield warn(
            "ifupdown applies the config drive's MTU to static IPv4 only",
            f"have a hook in {_HOOKS} set it (interfaces(5), IF_MTU)",
        )


GROUP = "configuration"
CHECKS = (
    Check("configuration.network-tools", GROUP, "the tools that cloud-init's renderer calls are there", tools),
    Check("configuration.mtu", GROUP, "the config drive's MTU", mtu),
)
