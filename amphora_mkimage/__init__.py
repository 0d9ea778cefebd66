"""amphora-mkimage: images for Octavia's amphorae, assembled without diskimage-builder."""

from __future__ import annotations

__version__ = "0.1.0"
