"""Stands in for pbr, see from_pkg_info.py."""
