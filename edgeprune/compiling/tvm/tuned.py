"""What tuning found, kept in a folder: one file for a kind of processor, shared by copying it.

A kernel is known by what it computes, so networks share what was found for one of them. A record holds the best form of
its loops, and two latencies from one comparison in turns: in that form, and in the one that needs no tuning.
`tuning.py` makes the records; start with `Tuned.faster`.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from edgeprune.compiling.processors import HOST, Target, processor_name
from edgeprune.compiling.tvm.form import Form
from edgeprune.errors import UserError
from edgeprune.storage import write_whole

# Less is not told from noise, and forms with more written out make larger programs.
LEAST_GAIN = 1.01
_VERSION = 1


@dataclass(frozen=True)
class Found:
    """The best form that tuning found for one kernel.

    Attributes:
        name: The kernel's name in the network that it was tuned for.
        form: The order of its loops.
        tuned_ns: Latency in that form, the least of a comparison.
        untuned_ns: Latency without tuning, from the same comparison.
        trials: Forms that were to be measured at most.
    """

    name: str
    form: Form
    tuned_ns: float
    untuned_ns: float
    trials: int

    @property
    def is_faster(self) -> bool:
        """Whether it is used: it was faster than the form that needs no tuning, by `LEAST_GAIN` or more."""
        return self.untuned_ns >= LEAST_GAIN * self.tuned_ns


@dataclass(frozen=True)
class Tuned:
    """All records of one kind of processor.

    Attributes:
        path: The file that they are kept in.
        found: Records by their kernel's `key`.
    """

    path: Path
    found: dict[str, Found]

    @classmethod
    def load(cls, folder: Path, target: Target, threads: int) -> Tuned:
        """The records for a target in a folder; none where there is no file for it.

        Args:
            folder: The database.
            target: What the code is for; this machine is known by its processor's name, so that machines of one kind
                share a file.
            threads: Threads the network will run on.

        Raises:
            UserError: the file is damaged, or another version of edgeprune wrote it.
        """
        path = folder / f"{_kind(target, threads)}.json"
        if not path.exists():
            return cls(path, {})
        try:
            fields = json.loads(path.read_text())
            if fields["version"] != _VERSION:
                raise UserError(f"{path} was written by another version of edgeprune", hint="tune again")
            return cls(path, {key: _record(record) for key, record in fields["kernels"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read", hint="remove it and tune again", detail=str(error)) from error

    def save(self) -> None:
        """Write the file.

        Raises:
            StorageError: it cannot be written.
        """
        write_whole(self.path, self._content())

    def faster(self, fused: tvm.IRModule) -> dict[str, Form]:
        """The forms to use instead of those that need no tuning, by the names of a network's fused kernels."""
        chosen = {}
        for name, kernel in fused.functions_items():
            record = self.found.get(key(kernel)) if isinstance(kernel, tirx.PrimFunc) else None
            if record is not None and record.is_faster:
                chosen[str(name.name_hint)] = record.form
        return chosen

    def told(self, kernels: Iterable[str]) -> str:
        """A sentence for the report, which names the kernels that tuning made faster, and the records by their hash."""
        digest = hashlib.sha256(self._content()).hexdigest()[:12]
        return f"tuned ({self.path.name}, sha256 {digest}): {', '.join(sorted(kernels)) or 'none of its kernels'}"

    def _content(self) -> bytes:
        kernels = {number: asdict(record) for number, record in sorted(self.found.items())}
        return (json.dumps({"version": _VERSION, "kernels": kernels}, indent=1) + "\n").encode()


def key(kernel: tirx.PrimFunc) -> str:
    """What a kernel computes, as a number that is the same in every process and network."""
    return f"{tvm_ffi.structural_hash(kernel.with_attr('global_symbol', 'main')):016x}"


def _record(fields: dict[str, Any]) -> Found:
    return Found(**{**fields, "form": Form(**fields["form"])})


def _kind(target: Target, threads: int) -> str:
    """The name of a kind of processor: of what its code and its latencies depend on."""
    processor = f"{platform.machine()} {processor_name()}" if target.name == HOST else ""
    said = json.dumps([target.ingredients(), processor, threads, tvm.__version__], sort_keys=True)
    return f"{target.name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
