"""What every transport offers: copy files to and from a device, run one program there under the agent, ask for facts.

Start with `Transport`. A `Channel` is the running program: requests go in as JSON lines, answers come out as JSON
lines, and the end of its stdin ends everything on the device (`devices/agent/agent.sh` says how). `agent_words` and
`launch_commands` are how the agent is called, wherever it lies.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeprune.errors import GarbledAnswerError, TransportError
from edgeprune.resources import devices_folder
from edgeprune.transport.answers import Facts, parse, read
from edgeprune.transport.channel import Attach, Channel


class Transport(Protocol):
    """The way to one device. Remote paths are strings that only the transport interprets."""

    name: str
    is_this_machine: bool
    """Whether preparing here would disturb a measurement there."""

    def facts(self) -> dict[str, Any]:
        """What the device says of itself (`agent.sh facts`).

        Raises:
            LinkLostError: it does not answer now.
            TransportError: it cannot be reached until somebody mends the way.
        """

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Take the device for this run alone; False if another run still holds it after `wait_seconds`.

        It is kept, renewed where that is needed, until `close`; to take it twice is to have it.
        """

    def holder(self) -> str:
        """Who holds the device that `acquire` did not get, and until when, in words; "" where nobody can say."""

    def taken_over_from(self) -> str:
        """Whose right to the device had run out when `acquire` got it, that other may come back; "" if nobody's."""

    def check_lease(self) -> None:
        """Make sure that the device is still this run's.

        Raises:
            LeaseLostError: another run has taken it, or it could not be renewed in time.
        """

    def raise_clock(self) -> list[int]:
        """Have the governor `performance` keep the clock up for as long as this run holds the device.

        Only where the device lets this user, and what was set before is put back however the run ends. This machine's
        is left to its owner. Returns the cores that it was set on.

        Raises:
            TransportError: the device does not answer.
        """

    def push(self, sources: Sequence[Path]) -> list[str]:
        """Copy files that belong together into one private folder on the device, named by their content.

        Each is copied under a temporary name, its hash checked on the device, then renamed; what is there already is
        not copied again. Returns the remote paths, in order.

        Raises:
            NoRoomError: they do not fit, even without what was discarded.
            TransportError: a copy failed or does not equal its source.
        """

    def discard(self, remote: str) -> None:
        """A pushed file, and those that were pushed with it, are not needed now: what finds no room may take theirs."""

    def remote_path(self, name: str) -> str:
        """A path in the device's private folder for a file that a program there will write."""

    def pull(self, remote: str, destination: Path) -> None:
        """Copy a file from the device.

        Raises:
            TransportError: it is not there or cannot be copied.
        """

    def python(self, runtime: str | None = None) -> list[str]:
        """The words that start Python on the device; with a runtime, so that it finds what its worker loads.

        Raises:
            DeviceError: there is no Python that could, or its packages cannot be brought there.
        """

    def run(self, arguments: Sequence[str], cores: Sequence[int] | None) -> Channel:
        """Start a program under the agent, pinned to `cores` where the device can."""

    def clean(self) -> None:
        """Remove everything of edgeprune's from the device, whoever put it there; `acquire` it first.

        Raises:
            TransportError: it does not answer.
        """

    def abort(self) -> None:
        """End what is under way, programs and copies: called from another thread than the one that waits for them.

        Those waits raise TransportError or RemoteError at once. The transport is only good for `close` after that.
        """

    def close(self) -> None:
        """Remove what was pushed and let the device go; safe to call twice."""


def agent_files() -> list[Path]:
    """The agent's files, which lie in one folder on a device; the first is what is run."""
    folder = devices_folder() / "agent"
    main = folder / "agent.sh"
    return [main, *sorted(set(folder.glob("*.sh")) - {main})]


def agent_words(agent: str, folder: str) -> list[str]:
    """The beginning of an argument list that calls the agent.

    Args:
        agent: Where agent.sh lies on the device.
        folder: The private folder there in which it keeps what it keeps.
    """
    return ["env", f"EDGEPRUNE_AGENT_FOLDER={folder}", "sh", agent]


def launch_commands(
    words: Sequence[str], arguments: Sequence[str], cores: Sequence[int] | None
) -> tuple[list[str], Attach]:
    """How the agent starts a program, and how it takes it over after a link was lost, for a `Channel`.

    The launch's name is made here and known to nobody else, so that no other laptop takes it over by accident.

    Args:
        words: The beginning of both, see `agent_words`.
        arguments: The program and its arguments.
        cores: What to pin it to; None for any.
    """
    launch = secrets.token_hex(8)
    pinned = ",".join(map(str, cores)) if cores else "-"

    def attach(lines: int, requests: int) -> list[str]:
        return [*words, "attach", launch, str(lines), str(requests)]

    return [*words, "run", launch, pinned, *arguments], attach


def parse_facts(line: bytes, device: str) -> dict[str, Any]:
    """What `agent.sh facts` printed, with sizes in bytes.

    Raises:
        TransportError: it is no facts line.
    """
    try:
        facts = parse(line, device)
        read(Facts, facts, device)
        if facts.pop("event", None) != "facts":
            raise GarbledAnswerError(f"{device}: not an answer: {line[:200]!r}")
    except GarbledAnswerError as error:
        hint = f"edgeprune devices clean {device}"
        raise TransportError(f"{device}: the agent says no facts: {error}", hint=hint) from error
    for what in ("memory", "free"):  # a shell's numbers may be too small for bytes
        kib = facts.pop(f"{what}_kib")
        facts[f"{what}_bytes"] = None if kib is None else 1024 * kib
    return facts
