"""Verified downloads and the cache."""
