"""Turn what Python raises into errors that users can read; where it was raised goes into the log only."""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator

from amphora_mkimage.errors import DefectError, MkimageError

_ELSEWHERE = "work elsewhere with -w, -c, -o and TMPDIR"
_REMEDIES = {
    errno.ENOSPC: f"free some space, or {_ELSEWHERE}",
    errno.EDQUOT: f"free some of your quota, or {_ELSEWHERE}",
    errno.EROFS: f"the filesystem is read-only: {_ELSEWHERE}",
    errno.EACCES: f"look at its owner and permissions, or {_ELSEWHERE}",
    errno.EPERM: f"look at its owner and attributes, or {_ELSEWHERE}",
    errno.EIO: "the storage fails: look at the kernel's messages (dmesg)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files (sysctl fs.file-max)",
    errno.ENOMEM: "free some memory, or build on disk (-f)",
}
_UNKNOWN = "if this host does not explain it, it is a defect of amphora-mkimage: please report it with the log"


def explain(error: OSError) -> MkimageError:
    """Return the error of a system call of ours that failed; a full disk is the one that users meet."""
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    reason = error.strerror or str(error) or type(error).__name__
    return MkimageError(f"{reason}{where}", _REMEDIES.get(error.errno or 0, _UNKNOWN), trace=_trace(error))


def defect(error: BaseException) -> MkimageError:
    """Return the error of what no code of ours expected."""
    if isinstance(error, MemoryError):
        return MkimageError("out of memory", _REMEDIES[errno.ENOMEM], trace=_trace(error))
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return DefectError(f"this is a defect of amphora-mkimage ({text})", "please report it", trace=_trace(error))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Let nothing out but errors that users can read, and interrupts."""
    try:
        yield
    except MkimageError:
        raise
    except OSError as error:
        raise explain(error) from error
    except Exception as error:
        raise defect(error) from error


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
