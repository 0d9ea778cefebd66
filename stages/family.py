"""Families of distributions, for stages that differ between them."""

from __future__ import annotations

from amphora_mkimage.request import Request


def is_redhat(request: Request) -> bool:
    """Tell whether the image is of Red Hat's family: rpm, dnf, NetworkManager, SELinux."""
    return request.base.dnf
