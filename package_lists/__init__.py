"""Which packages, by distribution and role."""
