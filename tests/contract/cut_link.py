"""A link that is cut as a radio link is: neither end sees the other go, and what was under way is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.contract.agent_of import AgentOf

# The laptop's client: two copies of bytes, one each way.
_CLIENT = 'echo $$ >"$3"; cat "$1" & exec cat >"$2"'


class CutLink:
    """Links to one agent, one after the other; each stays open at the device's end until `release`."""

    def __init__(self, agent: AgentOf, folder: Path) -> None:
        self._agent = agent
        self._folder = folder
        self._held: list[int] = []
        self.served: list[subprocess.Popen[bytes]] = []

    def client(self, *words: str) -> list[str]:
        """Start the agent on the device's end of a new link; the argument list of the laptop's end."""
        ends = []
        for way in ("down", "up"):
            pipe = self._folder / f"{way}{len(self.served)}"
            os.mkfifo(pipe)
            self._held.append(os.open(pipe, os.O_RDWR))
            ends.append(self._held[-1])
        command = self._agent.command(*words)
        self.served.append(subprocess.Popen(command, stdin=ends[1], stdout=ends[0], start_new_session=True))
        names = [str(self._folder / f"{what}{len(self.served) - 1}") for what in ("down", "up", "client")]
        return ["sh", "-c", _CLIENT, "sh", *names]

    def cut(self) -> None:
        """Take the laptop's newest client away, whether its link is in use yet or not."""
        number = self._folder / f"client{len(self.served) - 1}"
        while not number.exists() or not number.read_text():
            time.sleep(0.01)
        os.killpg(int(number.read_text()), signal.SIGKILL)

    def release(self) -> None:
        """From here on the device sees the end of a link as soon as its client is gone."""
        for end in self._held:
            os.close(end)
        self._held.clear()

    def hang_up(self) -> None:
        """Let the device see the end of all links, whose clients are gone, and wait until it has let them go."""
        self.release()
        for agent in self.served:
            agent.wait(timeout=10)
