"""What a fault of a device means for the work on it: once more, the cell fails, or the device is given up.

This is the one place that decides so; the errors themselves are those of `edgeprune/errors.py`. Start with
`Contact.carry_out`.

    what happened                                         what follows
    no contact (LinkLostError)                            wait for the device, deploy anew, once more
    no contact for longer than the patience               the device is given up, the others go on
    a garbled answer                                      once more, then the cell fails
    the worker failed, hung, was killed; unequal numbers  the cell fails
    a copy failed, and the device answers (a full disk)   the cell fails
    the way needs a person (keys, permissions)            the device is given up
    another laptop took the device                        the device is given up
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgeprune.errors import (
    DeviceError,
    EdgepruneError,
    GarbledAnswerError,
    LeaseLostError,
    LinkLostError,
    TransportError,
)
from edgeprune.manifest import other_machine
from edgeprune.transport import Transport

T = TypeVar("T")

PATIENCE_SECONDS = 600.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 15.0
# a launch that takes the device down each time must not do so all night
_MOST_LOSSES = 20
_MOST_RESTARTS = 5
_AGAIN = "the same command goes on where this one stopped"


class DeviceGivenUpError(EdgepruneError):
    """Nothing more can be done on a device now; its cells that are left fail with these words."""


class StoppedError(Exception):
    """The run is being stopped: what was under way here has not happened."""


class Contact:
    """A device as the work on it sees it: it answers, or it is waited for.

    `absences` counts how often contact was lost: the device may have lost its files each time.

    Args:
        way: The way to the device.
        facts: What the device said of itself when the run reached it.
        patience_s: How long it may be out of contact before it is given up, seconds.
        stop: Set when the run is being stopped.
        say: Told in a sentence what is waited for.
        renewed: Called with the facts of a device that has answered again.
    """

    def __init__(
        self,
        way: Transport,
        facts: Mapping[str, Any],
        patience_s: float,
        stop: threading.Event,
        say: Callable[[str], None],
        renewed: Callable[[dict[str, Any]], None],
    ) -> None:
        self.way = way
        self.facts = facts
        self.absences = 0
        self._patience_s = patience_s
        self._stop = stop
        self._say = say
        self._renewed = renewed

    def carry_out(self, work: Callable[[], T], *, leased: bool = True) -> T:
        """Do a piece of work that leaves nothing behind unless it succeeds, as often as the link makes it necessary.

        Args:
            work: It is done once, and once more after each fault that may pass.
            leased: Whether the device must be this run's before and after it.

        Raises:
            DeviceGivenUpError: nothing more can be done on this device.
            DeviceError: this work failed on the device; other work may succeed.
            ParityError: as `work` raises it.
            StoppedError: the run is being stopped.
        """
        tries = _Tries(self.boot_id)
        while True:
            self.require_going()
            try:
                if leased:
                    self.way.check_lease()
                result = work()
                if leased:
                    self.way.check_lease()
                return result
            except DeviceError as error:
                self.require_going()
                self._require_passing(error, tries)

    @property
    def boot_id(self) -> str:
        """What tells one start of the device from the next; "" where it cannot be read."""
        return str(self.facts.get("boot_id") or "")

    def pause(self, seconds: float) -> None:
        """Wait, unless the run is stopped meanwhile; raises StoppedError then."""
        if self._stop.wait(seconds):
            raise StoppedError

    def require_going(self) -> None:
        """Raise StoppedError if the run is being stopped."""
        self.pause(0.0)

    def say(self, text: str) -> None:
        """Tell the user something about this device."""
        self._say(f"{self.way.name}: {text}")

    def _require_passing(self, error: DeviceError, tries: _Tries) -> None:
        """Return when the work is to be tried once more, else raise."""
        if isinstance(error, LeaseLostError):
            raise DeviceGivenUpError(error.message, hint=error.hint or _AGAIN) from error
        if isinstance(error, GarbledAnswerError) and not tries.garbled:
            tries.garbled = True
            self.say(f"{error.message}; once more")
            return
        if isinstance(error, TransportError) and not isinstance(error, LinkLostError):
            try:
                self.way.facts()
            except LinkLostError as lost:
                error = lost
            except TransportError as broken:
                raise DeviceGivenUpError(broken.message, hint=broken.hint, detail=broken.detail) from broken
        if not isinstance(error, LinkLostError):
            raise error
        self.wait_for(error)
        tries.count(self.way.name, self.boot_id)

    def wait_for(self, error: LinkLostError) -> None:
        """Wait until the device answers again, and take its facts anew.

        Raises:
            DeviceGivenUpError: it did not within the patience, needs a person, or is another machine now.
            StoppedError: the run is being stopped.
        """
        began = time.monotonic() - error.away_s
        pause = _FIRST_PAUSE_SECONDS
        left_s = max(0.0, self._patience_s - error.away_s)
        self.say(f"no contact ({error.message}); waiting up to {left_s:.0f} s until it answers")
        while True:
            self.pause(pause)
            try:
                facts = self.way.facts()
                break
            except LinkLostError as lost:
                if time.monotonic() - began >= self._patience_s:
                    words = f"{self.way.name}: no contact for {time.monotonic() - began:.0f} s: {lost.message}"
                    hint = f"{lost.hint}; then {_AGAIN}" if lost.hint else _AGAIN
                    raise DeviceGivenUpError(words, hint=hint, detail=lost.detail) from lost
            except DeviceError as broken:
                self.require_going()
                raise DeviceGivenUpError(broken.message, hint=broken.hint, detail=broken.detail) from broken
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        differing = other_machine(self.facts, facts)
        if differing:
            raise DeviceGivenUpError(
                f"{self.way.name}: another machine answers there now ({differing})",
                hint="give the device a fixed address, then run the same command",
            )
        before, self.facts = self.boot_id, facts
        restarted = ", restarted" if self.boot_id != before else ""
        self.say(f"answers again after {time.monotonic() - began:.0f} s{restarted}")
        self.absences += 1
        self._renewed(facts)


class _Tries:
    """What has happened to one piece of work so far."""

    def __init__(self, boot_id: str) -> None:
        self.garbled = False
        self._losses = 0
        self._boots = {boot_id}

    def count(self, name: str, boot_id: str) -> None:
        """Count a loss of contact; raises DeviceError when it cannot be chance any more."""
        self._losses += 1
        self._boots.add(boot_id)
        if len(self._boots) > _MOST_RESTARTS:
            raise DeviceError(
                f"{name}: the device restarted {_MOST_RESTARTS} times during one launch",
                hint="too little memory or a weak power supply? see `edgeprune doctor`",
            )
        if self._losses >= _MOST_LOSSES:
            raise DeviceError(
                f"{name}: contact was lost {_MOST_LOSSES} times during one launch",
                hint="bring it nearer, or use a cable",
            )


def told(error: EdgepruneError) -> str:
    """An error as the `reason` of a cell: message, hint, and the last line of what the device said."""
    parts = [error.message, error.hint or "", error.evidence if error.evidence not in error.message else ""]
    return "; ".join(part for part in parts if part)
