"""Ways to act on a root filesystem."""
