"""Every error edgeprune raises on purpose, as one tree.

    EdgepruneError                  what happened, where, a hint that says what to do now
    ├── UserError                   the request cannot be carried out as written      (exit status 2)
    │   ├── UnknownNameError        a model, method, runtime, device or key that does not exist
    │   ├── MatrixError             a matrix file that cannot be read or says something impossible
    │   ├── ModelError              a model that cannot be built, loaded or traced
    │   │   ├── TraceError          torch.fx cannot follow the model's forward
    │   │   └── WeightsError        a checkpoint that does not fit the model, or holds NaN
    │   ├── DatasetError            a dataset that cannot be read
    │   └── ResultsError            a results folder that is missing, locked or holds no run
    ├── StageError                  one stage failed for one network: the cell fails, the matrix goes on (1)
    │   ├── ShrinkError             the shrunk network would not equal the masked one
    │   │   └── NoRuleError         the method that was asked for does not know an operator   (2)
    │   ├── ExportError             no ONNX file could be made
    │   ├── ParityError             the numbers of two forms of one network differ
    │   └── CompileError            a compiler refused the network
    ├── DeviceError                 a device did not do what was asked                (1)
    │   ├── TransportError          the way to the device is broken: link, permission, copy
    │   │   ├── LinkLostError       no contact: the same may go well once the device answers again
    │   │   └── LeaseLostError      another laptop has taken the device
    │   └── RemoteError             the device answered, and what ran there failed
    │       └── GarbledAnswerError  what came is no answer: a line was damaged, or something else wrote it
    ├── StorageError                the disk is full or cannot be written             (1)
    └── JournalError                a record of the journal cannot be read            (1)

Lower errors (OSError, RuntimeError of torch, TVMError ...) are mapped to the most specific class here at the one
boundary where they arise. The command prints `str(error)` and the hint; `--debug` adds the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKE = 0.5  # from this share of common characters on, a name is offered for another


class EdgepruneError(Exception):
    """Root of the tree.

    Args:
        message: What happened, where, and the value that caused it; one or two sentences.
        hint: What to do now: a command, an allowed value, a place to look.
        detail: Longer evidence, such as the tail of a compiler's or a worker's stderr.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    @property
    def evidence(self) -> str:
        """The last line of the detail, which mostly names the cause; "" without one."""
        return self.detail.splitlines()[-1] if self.detail else ""

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.detail))


def _rebuild(kind: type[EdgepruneError], message: str, hint: str | None, detail: str | None) -> EdgepruneError:
    """Unpickle an error whatever arguments its own constructor takes."""
    error = kind.__new__(kind)
    EdgepruneError.__init__(error, message, hint=hint, detail=detail)
    return error


class UserError(EdgepruneError):
    """The request cannot be carried out as written."""

    exit_status = 2


class UnknownNameError(UserError):
    """A name that is not in a registry; the message gives the nearest right ones.

    >>> print(UnknownNameError("model", "resnet21", ["resnet20", "lenet5"]).hint)
    did you mean resnet20? allowed: lenet5, resnet20
    """

    def __init__(self, what: str, wrong: str, allowed: Iterable[str], *, where: str | None = None) -> None:
        names = sorted(allowed)
        place = f"{where}: " if where else ""
        super().__init__(f"{place}unknown {what} {wrong!r}", hint=nearest_hint(wrong, names))


def nearest_hint(wrong: str, names: list[str]) -> str:
    """The sentence that follows an unknown name: the nearest right one, then all that are allowed."""

    def likeness(name: str) -> tuple[float, int]:
        # among equally like names, the one that begins alike for longer
        same = [a == b for a, b in zip(wrong, name, strict=False)]
        return difflib.SequenceMatcher(None, wrong, name).ratio(), [*same, False].index(False)

    nearest = max(names, key=likeness, default="")
    near = nearest and likeness(nearest)[0] >= _LIKE
    return (f"did you mean {nearest}? " if near else "") + "allowed: " + ", ".join(names)


class MatrixError(UserError):
    """A matrix file that cannot be read or says something impossible."""


class ModelError(UserError):
    """A model that cannot be built, loaded or traced."""


class TraceError(ModelError):
    """torch.fx cannot follow the model's forward."""


class WeightsError(ModelError):
    """A checkpoint that does not fit the model, or holds NaN."""


class DatasetError(UserError):
    """A dataset that cannot be read."""


class ResultsError(UserError):
    """A results folder that is missing, locked or holds no run."""


class StageError(EdgepruneError):
    """One stage failed for one network: the cell fails, the matrix goes on."""


class ShrinkError(StageError):
    """The shrunk network would not equal the masked one."""


class NoRuleError(ShrinkError):
    """The method that was asked for does not know an operator of the network; another method does."""

    exit_status = 2


class ExportError(StageError):
    """No ONNX file could be made."""


class ParityError(StageError):
    """The numbers of two forms of one network differ."""


class CompileError(StageError):
    """A compiler refused the network."""


class DeviceError(EdgepruneError):
    """A device did not do what was asked."""


class TransportError(DeviceError):
    """The way to the device is broken: link, permission, copy."""


class LinkLostError(TransportError):
    """No contact with the device: cut, asleep, restarting or switched off; the same may go well when it answers again.

    A way that a person has to mend (an unknown host key, a phone that does not know this laptop) is a plain
    `TransportError`: trying again does not help.

    Attributes:
        away_s: How long it had been waited for when this was raised, seconds.
    """

    away_s = 0.0


class NoRoomError(TransportError):
    """What was to be copied does not fit onto the device's disk."""


class LeaseLostError(TransportError):
    """Another laptop has taken the device; what is measured on it now is disturbed by the other's work."""


class RemoteError(DeviceError):
    """The device answered, and what ran there failed."""


class GarbledAnswerError(RemoteError):
    """What came from the device is no answer: a damaged line, or the words of something else that ran there."""


class StorageError(EdgepruneError):
    """The disk is full or cannot be written."""


class JournalError(EdgepruneError):
    """A record of the journal cannot be read."""
