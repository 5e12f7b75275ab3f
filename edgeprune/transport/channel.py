"""A program running on a device, seen from here: requests go in, answers come out, whatever happens to the link.

Start with `Channel`. Its other end is `devices/agent/launch.sh`, which keeps what the program says in a spool and
numbers the requests: after a lost link a second client asks for the lines that did not come and sends the requests that
did not arrive, so that nothing is lost or carried out twice. Only complete lines count; a torn one comes again.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError, GarbledAnswerError, LinkLostError, RemoteError, TransportError
from edgeprune.transport.answers import Exit, SensorReading, Started, line_of, parse, read
from edgeprune.transport.client import Client

AGENT_STOP_SECONDS = 2.0
PATIENCE_SECONDS = 90.0
"""How long a lost link may stay away before the launch is given up: after that silence the agent has ended it."""
_ALIVE_SECONDS = 10.0  # the agent takes 90 s without a sign of life for a dead link
_SILENCE_SECONDS = 60.0  # the agent answers each sign of life
_ATTACH_SECONDS = 45.0
_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
_LAST_WORDS_SECONDS = 3.0
_ALIVE = b'{"op":"alive"}\n'

Attach = Callable[[int, int], Sequence[str]]
"""The argument list that takes a launch over, given how many of its lines came and how many requests were sent."""


class Channel:
    """A program running on a device under the agent.

    Args:
        arguments: What to start here: the agent itself, or the ssh or adb client that carries its streams.
        device: Name used in messages.
        folder: Where it is started.
        attach: What to start when the link is lost; None gives up at once.
        patience: Seconds that a lost link may stay away.

    Raises:
        TransportError: the client cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        device: str,
        folder: Path | None = None,
        attach: Attach | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._device, self._folder, self._attach, self._patience = device, folder, attach, patience
        self._answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._requests: list[bytes] = []
        self._lines = 0
        self._heard = time.monotonic()
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._linked = threading.Event()
        self._linked.set()
        self._failure: EdgepruneError | None = None
        self._ended = False
        self.cores: list[int] | None = None
        self.readings: list[dict[str, Any]] = []
        self._client = Client(arguments, device, folder)
        self._coming: Client | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if attach is not None:
            threading.Thread(target=self._keep_alive, daemon=True).start()

    def send(self, request: dict[str, Any]) -> None:
        """Write one request line; while the link is lost it waits for the link to come back.

        Raises:
            RemoteError: the program has ended.
        """
        line = line_of(request)
        with self._writing:
            self._requests.append(line)
            written = not self._ended and self._client.write(line)
        if not written and (self._ended or self._attach is None):
            raise self._error("the program ended before it took a request")

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next answer of the program; the agent's own events are kept in `cores` and `readings`.

        Args:
            timeout: Seconds to wait; those without a link do not count, and the agent's events are no answer.

        Raises:
            GarbledAnswerError: it wrote something that is no JSON line, or the agent's event holds something else.
            RemoteError: the program failed or ended.
            LinkLostError: the link was lost, and the program with it.
            TransportError: nothing came in time, or a lost link could not be taken up again.
            StorageError: there was no room for that here.
        """
        patience = _Patience(timeout)
        while True:
            answer = self._parse(self._next_line(patience))
            event = answer.get("event")
            if event is None:
                if "error" in answer:
                    words = f"{answer['error']}: {answer.get('message', '')}"
                    raise self._error(words, self._last_words())
                return answer
            if event == "exit":
                raise self._exit_error(answer)
            self._note(answer)

    def stop(self) -> None:
        """End the program and wait until the agent has gone; safe to call twice."""
        self._stop_coming()
        self._client.close_stdin()
        self._client.wait(AGENT_STOP_SECONDS + 1.0)
        self._reader.join(timeout=AGENT_STOP_SECONDS)
        while not self._answers.empty():
            line = self._answers.get()
            with contextlib.suppress(GarbledAnswerError):
                self._note(self._parse(line) if line else {})
        self._client.close()

    def abort(self) -> None:
        """End the program from any thread: whoever waits in `receive` is told at once that the connection ended."""
        self._stop_coming()
        self._client.close_stdin()
        self._client.kill()
        self._answers.put(None)

    def _stop_coming(self) -> None:
        """Stop, and end a client that is just taking the launch over: the reader sees one of the two."""
        self._stopping.set()
        coming = self._coming
        if coming is not None:
            coming.kill()

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _next_line(self, patience: _Patience) -> bytes:
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, min(1.0, patience.left())))
            except queue.Empty:
                if not self._linked.is_set():
                    patience.renew()
                elif patience.left() <= 0:
                    raise TransportError(
                        f"{self._device}: no answer for {patience.seconds:.0f} s",
                        hint="is the device busy, asleep or out of reach?",
                    ) from None
                continue
            if line is None:
                self._answers.put(None)
                raise self._failure or self._error("the connection ended")
            return line

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("event") == "started":
            self.cores = read(Started, event, self._device).cores
        elif event.get("event") == "reading":
            read(SensorReading, event, self._device)
            self.readings.append(event)

    def _last_words(self) -> str:
        """What a program that has just failed wrote to stderr, which its exit tells."""
        with contextlib.suppress(TransportError, RemoteError):
            patience = _Patience(_LAST_WORDS_SECONDS)
            while patience.left() > 0:
                answer = self._parse(self._next_line(patience))
                if answer.get("event") == "exit":
                    return str(answer.get("stderr", ""))
                self._note(answer)
        return ""

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            return parse(line, self._device)
        except GarbledAnswerError as error:
            error.detail = self._client.said() or None
            raise

    def _exit_error(self, event: dict[str, Any]) -> TransportError | RemoteError:
        told = read(Exit, event, self._device)
        if told.stopped:
            return LinkLostError(f"{self._device}: the link was lost, and the device ended the program")
        if told.refused:
            return self._error(f"the program cannot be executed here: {told.refused}", told.stderr)
        return self._error(_exit_words(told.status), told.stderr)

    def _error(self, what: str, words: str = "") -> RemoteError:
        return RemoteError(
            f"{self._device}: {what}", detail="\n".join(filter(None, [words, self._client.said()])) or None
        )

    # --- the link (threads of their own) ------------------------------------------------------------------------------

    def _read(self) -> None:
        """All lines of the program, from one client after the other, to its end."""
        try:
            while not self._read_client() and self._reattach():
                pass
        except EdgepruneError as error:
            self._failure = error
        except Exception as error:  # whoever waits in `receive` has to hear of it, whatever it is
            self._failure = TransportError(f"{self._device}: a lost link could not be taken up again: {error}")
        finally:
            with self._writing:
                self._ended = True
            self._linked.set()
            self._answers.put(None)

    def _read_client(self) -> bool:
        """The lines that this client brings; True after the program's last."""
        for line in self._client.lines():
            self._lines += 1
            self._heard = time.monotonic()
            self._answers.put(line)
            if line.startswith(b'{"event":"exit"'):
                return True
        return False

    def _reattach(self) -> bool:
        """Take the launch over by a new client; False if there is none any more, or no way to it for too long."""
        if self._attach is None or self._stopping.is_set():
            return False
        self._linked.clear()
        began, said = time.monotonic(), self._client.said()
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            if time.monotonic() + pause - began > self._patience:
                break
            if self._stopping.wait(pause):
                return False
            told, said = self._try_attach(self._attach)
            if told == "attached":
                return True
            if told == "gone":
                self._failure = LinkLostError(
                    f"{self._device}: the link was lost, and the device no longer knows the launch (was it restarted?)"
                )
                return False
        words = f"{self._device}: the link was lost and not back within {self._patience:.0f} s"
        self._failure = lost = LinkLostError(words, hint="is the device switched on and in reach?", detail=said or None)
        lost.away_s = time.monotonic() - began
        return False

    def _try_attach(self, attach: Attach) -> tuple[str, str]:
        """One attempt: "attached", "gone" or "", and what the client said."""
        try:
            client = Client(attach(self._lines, len(self._requests)), self._device, self._folder)
        except TransportError as error:
            return "", str(error)
        self._coming = client
        if self._stopping.is_set():
            client.kill()
        told: dict[str, Any] = {}
        with contextlib.suppress(GarbledAnswerError):
            told = parse(client.first_line(_ATTACH_SECONDS), self._device)
        self._coming = None
        if told.get("event") == "attached" and isinstance(told.get("requests"), int):
            self._take(client, told["requests"])
            return "attached", ""
        client.close()
        return ("gone" if told.get("event") == "gone" else ""), client.said()

    def _take(self, client: Client, arrived: int) -> None:
        """Go on with this client; the other is closed only now, since the end of its stdin could end the program."""
        with self._writing:
            for line in self._requests[arrived:]:
                client.write(line)
            old, self._client = self._client, client
        old.close()
        self._heard = time.monotonic()
        self._linked.set()
        if self._stopping.is_set():  # whoever stops may have closed the other one
            client.close()

    def _keep_alive(self) -> None:
        """A sign of life every few seconds; a client over which no answer comes has lost its link."""
        while not self._stopping.wait(_ALIVE_SECONDS) and not self._ended:
            if self._linked.is_set():
                with self._writing:
                    self._client.write(_ALIVE)
                if time.monotonic() - self._heard > _SILENCE_SECONDS:
                    self._client.kill()


class _Patience:
    """How long an answer is still waited for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Wait for all of the time from now on."""
        self._until = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds; below zero when they have passed."""
        return self._until - time.monotonic()


def _exit_words(status: int) -> str:
    if status > 128:
        cause = " (out of memory?)" if status == 137 else ""
        return f"the program was ended by signal {status - 128}{cause}"
    meaning = {126: " (cannot be executed here)", 127: " (not found on the device)"}
    return f"the program ended with status {status}{meaning.get(status, '')}"
