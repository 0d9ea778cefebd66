"""The backend of setuptools by its two names."""

import from_pkg_info  # type: ignore[import-not-found]

prepare_metadata_for_build_wheel = from_pkg_info.prepare_metadata_for_build_wheel
build_wheel = from_pkg_info.build_wheel
__legacy__ = from_pkg_info
