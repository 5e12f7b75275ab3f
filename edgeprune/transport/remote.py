"""A device that is reached over a link (ssh, adb): the agent, files, programs and the lease, alike for all links.

Start with `RemoteTransport`. On the device everything lies in the link's private folder:

    agent-<hash>/       the agent, copied once
    pushed/             files, in folders named by their content
    everything else     the agent's own: its lease, running and ended launches
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import DeviceError, GarbledAnswerError, NoRoomError, TransportError
from edgeprune.transport.answers import Governor, parse, read
from edgeprune.transport.channel import PATIENCE_SECONDS, Channel
from edgeprune.transport.contents import content_name, sha256
from edgeprune.transport.contract import agent_files, agent_words, launch_commands, parse_facts
from edgeprune.transport.lease import Lease
from edgeprune.transport.link import QUERY_SECONDS, Link
from edgeprune.transport.remote_files import RemoteFiles
from edgeprune.transport.wheels import BoardPython

_FAREWELL_SECONDS = 20.0
_FACTS_SECONDS = 60.0  # under emulation or on a loaded Zero the shell takes its time


class RemoteTransport:
    """A device behind a link; `Transport` says what its methods do."""

    is_this_machine = False

    def __init__(self, link: Link, patience_s: float = PATIENCE_SECONDS) -> None:
        """`patience_s` is how long a link that is lost under a program may stay away, seconds."""
        self.name = link.name
        self._patience_s = min(patience_s, PATIENCE_SECONDS)
        self._link = link
        self._files = RemoteFiles(link)
        self._lease = Lease(self.name, self._ask_lease)
        self._python = BoardPython(self)
        self._discarded: set[str] = set()
        self._agent: str | None = None
        self._channel: Channel | None = None

    def facts(self) -> dict[str, Any]:
        return parse_facts(self._ask_agent(["facts"], _FACTS_SECONDS), self.name)

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        if not self._lease.take(wait_seconds):
            return False
        self._remove_leftovers()
        return True

    def holder(self) -> str:
        return self._lease.holder

    def taken_over_from(self) -> str:
        return self._lease.taken_over_from

    def check_lease(self) -> None:
        self._lease.check()

    def raise_clock(self) -> list[int]:
        return read(Governor, self._ask_for("governor", ["performance"]), self.name).cores

    def push(self, sources: Sequence[Path]) -> list[str]:
        folder = self.remote_path(content_name(list(map(sha256, sources))))
        remotes = [f"{folder}/{source.name}" for source in sources]
        self._discarded.discard(folder)
        try:
            self._files.put(sources, remotes)
        except NoRoomError:
            if not self._discarded:
                raise
            self._files.remove(*self._discarded)
            self._discarded.clear()
            self._files.put(sources, remotes)
        return remotes

    def discard(self, remote: str) -> None:
        self._discarded.add(remote.rpartition("/")[0])

    def remote_path(self, name: str) -> str:
        return f"{self._link.folder}/pushed/{name}"

    def pull(self, remote: str, destination: Path) -> None:
        self._files.get(remote, destination)

    def python(self, runtime: str | None = None) -> list[str]:
        return self._python.command(runtime)

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel:
        command, attach = launch_commands(self._agent_words(), arguments, cores)
        self._channel = Channel(
            self._link.command(command),
            self.name,
            attach=lambda lines, requests: self._link.command(attach(lines, requests)),
            patience=self._patience_s,
        )
        return self._channel

    def abort(self) -> None:
        if self._channel is not None:
            self._channel.abort()
        self._link.close()

    def close(self) -> None:
        """What cannot be removed now, since the device does not answer, the next run there removes."""
        if self._lease.held:
            farewell = threading.Thread(target=self._say_farewell, name=f"farewell to {self.name}", daemon=True)
            farewell.start()
            farewell.join(_FAREWELL_SECONDS)
        self._lease.stop_renewing()
        self._link.close()

    def _say_farewell(self) -> None:
        with contextlib.suppress(DeviceError):
            self._remove_leftovers()
            self._lease.drop()

    def clean(self) -> None:
        """Stop what runs on the device and remove everything of edgeprune's from it, whoever put it there.

        Raises:
            TransportError: it does not answer.
        """
        self._lease.end_renewing()  # the lease is among what is removed
        self._ask_agent(["clean", "all"], QUERY_SECONDS)
        self._files.remove(self._link.folder)
        self._agent = None

    def _remove_leftovers(self) -> None:
        """Stop and remove what this run, or one that was cut off, left behind."""
        self._ask_agent(["clean"], QUERY_SECONDS)

    def _ask_lease(self, words: list[str]) -> dict[str, Any]:
        return self._ask_for("lease", words)

    def _ask_for(self, event: str, words: Sequence[str]) -> dict[str, Any]:
        """The one line that the agent answers with."""
        said = self._ask_agent([event, *words], QUERY_SECONDS)
        answer = parse(said, self.name)
        if answer.get("event") != event:
            raise GarbledAnswerError(f"{self.name}: the agent says nothing of the {event}: {said[:200]!r}")
        return answer

    def _ask_agent(self, words: Sequence[str], timeout: float) -> bytes:
        """What the agent prints; it is copied anew where somebody has removed it."""
        done = self._link.call([*self._agent_words(), *words], timeout=timeout)
        if done.status:
            self._agent = None
            done = self._link.call([*self._agent_words(), *words], timeout=timeout)
        if done.status:
            detail = done.stderr.decode(errors="replace").strip()
            raise TransportError(
                f"{self.name}: the agent ended with status {done.status} on {' '.join(words)}",
                hint=f"edgeprune doctor {self.name}",
                detail=detail or None,
            )
        return done.stdout

    def _agent_words(self) -> list[str]:
        """The beginning of a command for the agent, which lies on the device then."""
        folder = self._link.folder
        if self._agent is None:
            sources = agent_files()
            there = f"{folder}/agent-{content_name(list(map(sha256, sources)))}"
            self._files.put(sources, [f"{there}/{source.name}" for source in sources])
            self._agent = f"{there}/agent.sh"
        return agent_words(self._agent, folder)
