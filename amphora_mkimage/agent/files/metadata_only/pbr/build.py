"""The backend of pbr."""

from from_pkg_info import build_wheel, prepare_metadata_for_build_wheel  # type: ignore[import-not-found]

__all__ = ["build_wheel", "prepare_metadata_for_build_wheel"]
