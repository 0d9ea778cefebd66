"""Call something again and again while other work is done, in a thread, in a program that forks.

Python's fork(2) copies locks as they are, but not the threads that would release them. So whoever forks holds
:data:`LOCK` for that moment: the thread holds it while it prints, and so it is not in the middle of anything that the
child needs. The child has no ticker until it starts its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

#: Held by whoever writes to the user's terminal or log.
LOCK = threading.RLock()
os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


@contextlib.contextmanager
def ticking(seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call ``tick`` every so many seconds until the block ends; after it there is no further call."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(seconds):
            # What cannot be shown, or logged on a disk that is full, is for the work itself to complain about.
            with LOCK, contextlib.suppress(OSError):
                if not over.is_set():
                    tick()

    thread = threading.Thread(target=work, name="ticker", daemon=True)
    owner = os.getpid()
    thread.start()
    try:
        yield
    finally:
        over.set()
        if os.getpid() == owner:  # a child that was forked inside the block has no such thread
            thread.join()
