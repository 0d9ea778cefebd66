"""Stands in for setuptools, see from_pkg_info.py."""
