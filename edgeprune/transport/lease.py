"""A device for one run alone: a lease that the agent keeps on the device, where another laptop's run sees it too.

It lasts for 90 s and is renewed every 30 by a thread: a link that is cut for half a minute does not cost it, and a
laptop that vanishes does not keep the device. Start with `Lease.take`.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from edgeprune.errors import EdgepruneError, LeaseLostError

LEASE_SECONDS = 90
_POLL_SECONDS = 1.0


class Lease:
    """The right to use one device.

    Args:
        device: Its name, for messages.
        ask: Sends `lease` and these words to the agent, and returns its answer.
        seconds: How long it lasts without being renewed.
    """

    def __init__(self, device: str, ask: Callable[[list[str]], dict[str, Any]], seconds: int = LEASE_SECONDS) -> None:
        self._device = device
        self._ask = ask
        self._seconds = seconds
        self._owner = _owner()
        self._ours_until = 0.0
        self._lost_to: str | None = None
        self._holder = ""
        self._taken_over_from = ""
        self._dropped = threading.Event()
        self._renewing: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether it was taken and neither dropped nor lost to another run."""
        return self._renewing is not None and self._lost_to is None

    @property
    def holder(self) -> str:
        """Who held the device when it was asked for last, and for how long, in words."""
        return self._holder

    @property
    def taken_over_from(self) -> str:
        """Whose lease had run out when the device was taken; "" if nobody's."""
        return self._taken_over_from

    def take(self, wait_seconds: float) -> bool:
        """Whether it could be had within `wait_seconds`, or is ours already; it is renewed until it is dropped."""
        if self.held:
            return True
        deadline = time.monotonic() + wait_seconds
        while not self._asked("take"):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        self.end_renewing()  # of one that was lost
        self._dropped.clear()
        self._lost_to = None
        self._renewing = threading.Thread(target=self._renew, name=f"lease of {self._device}", daemon=True)
        self._renewing.start()
        return True

    def check(self) -> None:
        """Make sure that the device is still ours.

        Raises:
            LeaseLostError: another run has it.
            LinkLostError: it should have been renewed meanwhile, and the device does not answer.
        """
        if self._lost_to is None and time.monotonic() >= self._ours_until:
            self._renew_once()
        if self._lost_to is not None:
            raise LeaseLostError(
                f"{self._device}: {self._lost_to} has taken the device, since this run did not reach it for so long",
                hint="wait until that run has ended; the same command goes on where this one stopped",
            )

    def drop(self) -> None:
        """Give the device back; safe to call twice."""
        if self._renewing is None:
            return
        self._dropped.set()
        self._renewing.join()
        self._renewing = None
        if self._lost_to is None:
            self._asked("drop")

    def stop_renewing(self) -> None:
        """Let it run out by itself: the device cannot be told."""
        self._dropped.set()
        self._renewing = None

    def end_renewing(self) -> None:
        """Let it run out by itself, once a renewal that is under way has ended: it would make it anew."""
        renewing = self._renewing
        self.stop_renewing()
        if renewing is not None:
            renewing.join()

    def _renew(self) -> None:
        while not self._dropped.wait(self._seconds / 3) and self._lost_to is None:
            try:
                self._renew_once()
            except (EdgepruneError, OSError):  # no room, no file left to open: `check` tells who uses the device
                continue

    def _renew_once(self) -> None:
        with self._lock:
            if not self._asked("renew"):
                self._lost_to = self._holder.partition(",")[0] or "another run"

    def _asked(self, word: str) -> bool:
        began = time.monotonic()
        answer = self._ask([word, self._owner, str(self._seconds)])
        if answer.get("mine"):
            self._ours_until = began + self._seconds
            if word == "take":
                before = str(answer.get("taken_over_from") or "")
                self._taken_over_from = before if before != self._owner else ""
            return True
        left, owner = answer.get("left_s"), str(answer.get("owner") or "")
        self._holder = f"{owner}, for another {left} s unless renewed" if owner and left is not None else owner
        return False


def _owner() -> str:
    """This run, so that whoever waits knows whom to ask."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return re.sub(
        r"[^\w.@-]", "-", f"{user}@{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}", flags=re.ASCII
    )
