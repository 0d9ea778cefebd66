"""What this host can do, found by doing it: ``amphora-mkimage check``."""

from amphora_mkimage.probe.command import add_arguments, run

__all__ = ["add_arguments", "run"]
