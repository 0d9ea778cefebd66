"""What an image does not run on, although it is a complete amphora: network cards and processors."""

from __future__ import annotations

from collections.abc import Iterator

from amphora_mkimage.verify.kernel_checks import known_modules
from amphora_mkimage.verify.result import Check, Finding, info, not_applicable, passed
from amphora_mkimage.verify.subject import Subject

#: Drivers of SR-IOV virtual functions, with the cards.
_FUNCTIONS = {
    "iavf": "Intel X710, XL710, X722, XXV710, E810",
    "ixgbevf": "Intel 82599, X540, X550",
    "igbvf": "Intel 82576, I350",
    "mlx5_core": "NVIDIA ConnectX-4 and newer",
    "bnxt_en": "Broadcom NetXtreme-E",
}


def functions(subject: Subject) -> Iterator[Finding]:
    """Name the cards whose virtual functions the kernel cannot drive: plugging such a port fails in the cloud only."""
    version = subject.booted_version or next(iter(subject.kernel_versions[-1:]), "")
    known = known_modules(subject, version) if version else {}
    if not known:
        yield not_applicable("there is no kernel with modules")
        return
    missing = [f"{name} ({cards})" for name, cards in _FUNCTIONS.items() if name not in known]
    if missing:
        yield info(
            f"kernel {version} has no driver for SR-IOV ports on {', '.join(missing)}: -k chooses another kernel"
        )
    else:
        yield passed(f"{', '.join(_FUNCTIONS)}")


def processor(subject: Subject) -> Iterator[Finding]:
    """Name the processors that Red Hat's family from release 10 on needs."""
    if subject.os_release.get("PLATFORM_ID", "") == "platform:el10" and subject.tree.is_file(
        "/lib64/ld-linux-x86-64.so.2"
    ):
        yield info("its programs need x86-64-v3 (Haswell, EPYC): no cpu_model below that on the compute nodes")


CHECKS = (
    Check("kernel.sriov", "boot", "drivers of SR-IOV virtual functions", functions, disk=True),
    Check("kernel.processor", "boot", "runs on any processor of its architecture", processor),
)
