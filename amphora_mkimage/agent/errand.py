"""Fetch the agent's packages on the host while the base is made in a namespace, which has the other processor."""

from __future__ import annotations

import os
import select

from amphora_mkimage.agent import install
from amphora_mkimage.agent.install import Agent
from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store


class Errand:
    """What one process brings into the cache, and another waits for; made before they part.

    :param agent: None: nothing is to be brought
    :param arch: dpkg's name of the image's architecture
    """

    def __init__(self, agent: Agent | None, arch: str, store: Store, console: Console) -> None:
        self._agent, self._arch, self._store, self._console = agent, arch, store, console
        self._arrival, self._bell = os.pipe()

    def run(self, until: int) -> None:
        """Fetch, on the host.

        :param until: as for :func:`amphora_mkimage.agent.download.fetch`
        :raises MkimageError: a package cannot be had
        """
        if self._agent is not None:
            with self._console.aside():
                install.prepare(self._agent, self._arch, self._store, self._console, snapshot=True, until=until)
        os.write(self._bell, b"f")

    def wait(self, console: Console) -> None:
        """Wait in the namespace until all is there; whoever fails to bring it ends the namespace."""
        if not select.select([self._arrival], [], [], 0)[0]:
            with console.step("wait for the amphora agent's packages"):
                select.select([self._arrival], [], [])

    def close(self) -> None:
        """Forget it."""
        os.close(self._arrival)
        os.close(self._bell)
