"""Is there the memory that a build in a tmpfs takes, and can outputs appear out of nowhere in this directory?"""

from __future__ import annotations

import os
from pathlib import Path

from amphora_mkimage import memory as memory_there
from amphora_mkimage.console import Console
from amphora_mkimage.probe.outcome import Outcome, Result


def memory(_console: Console) -> Outcome:
    """Compare what a build in memory takes with what the host has available and the cgroup allows."""
    found = memory_there.available()
    wanted = f"a build in memory takes {memory_there.TMPFS_BYTES >> 30} GiB"
    if found.enough:
        return Outcome(Result.OK, f"{found}, {wanted}")
    remedy = "free some memory" if found.of_host else "raise its limit"
    return Outcome(Result.LIMITED, f"{found}, {wanted}: it works on disk, slower", remedy)


def unnamed_files(_console: Console) -> Outcome:
    """Make a file without a name here and give it one, as outputs get theirs."""
    here = Path.cwd()
    final = here / f".amphora-mkimage-check-{os.getpid()}"
    try:
        fd = os.open(here, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if not os.access(here, os.W_OK):
            return Outcome(Result.LIMITED, f"{here} is not writable", "name another place for the image with -o")
        reason = f"the filesystem of {here} has no O_TMPFILE ({error.strerror}): SIGKILL leaves a hidden file behind"
        return Outcome(Result.LIMITED, reason, "name a place for the image on a local filesystem with -o")
    try:
        os.link(f"/proc/self/fd/{fd}", final, src_dir_fd=fd, follow_symlinks=True)
        final.unlink()
    except OSError as error:
        reason = f"a file without a name cannot get one in {here}: {error.strerror}"
        return Outcome(Result.MISSING, reason, "name a place for the image on another filesystem with -o")
    finally:
        os.close(fd)
    return Outcome(Result.OK, f"images appear complete or not at all in {here}")
