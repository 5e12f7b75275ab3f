"""Tuning: forms of a network's convolutions are tried on the device, and the faster ones are kept.

All forms of a kernel that are tried (`form.py`) are compiled here into one library, sent to the device through TVM's
RPC, and timed there in turns. The best is then timed beside the form that needs no tuning, again in turns, and both
latencies are kept (`tuned.py`). Start with `tune`.

TVM's own search, MetaSchedule, is not used. It copies kernels by way of JSON, which ends in a segmentation fault with
the tvm-ffi that is installed beside TVM 0.27 (0.1.15.post2: EvolutionarySearch -> DeepCopyIRModule -> ToJSONGraph), and
its schedules cannot say how ARM wants multiply-adds written (`multiply.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx

from edgeprune.compiling.linking import Linker
from edgeprune.compiling.processors import Target
from edgeprune.compiling.tvm import rpc
from edgeprune.compiling.tvm.build import Fused, fuse, library_linker, unbuilt
from edgeprune.compiling.tvm.form import Form, forms
from edgeprune.compiling.tvm.schedule import schedule_kernel
from edgeprune.compiling.tvm.tuned import Found, Tuned, key
from edgeprune.errors import DeviceError, EdgepruneError

LOCAL = "local"
_TRIAL_ROUNDS, _ROUNDS = 5, 20
# Of one kernel in one round, in a row. They are short, since the least of them counts: that of one that no other
# process interrupted.
_TIMINGS, _LEAST_MS = 8, 1
_TRIALS_A_LIBRARY = 32  # all trials of one library are timed before TVM's server ends the session
_ANY_CORE = 0  # TVM's thread pool: no preference for big or small cores
_SEED = 1


@dataclass(frozen=True)
class _Bench:
    """Where kernels are compiled and timed.

    Attributes:
        fused: The network.
        linker: Links a library.
        address: Host and port of the RPC server.
        folder: Where libraries are put.
    """

    fused: Fused
    linker: Linker
    address: tuple[str, int]
    folder: Path

    def least_ns(self, kernel: tirx.PrimFunc, tried: Sequence[Form], rounds: int) -> list[float]:
        """Latency of a kernel in each form, the least of so many rounds over all forms."""
        library = self.folder / "forms.so"
        names = self._build(kernel, tried, library)
        session = rpc.connect(*self.address)
        try:
            if self.fused.threads > 1:
                session.get_function("runtime.config_threadpool")(_ANY_CORE, self.fused.threads)
            loaded, device = rpc.load(session, library, library.name), session.cpu()
            timers = [
                loaded.time_evaluator(name, device, number=1, repeat=_TIMINGS, min_repeat_ms=_LEAST_MS)
                for name in names
            ]
            arguments = [tvm.runtime.tensor(values, device) for values in _arguments(kernel)]
            seconds = [[timer(*arguments).min for timer in timers] for _ in range(rounds)]
        except Exception as error:  # TVM raises errors of any kind
            raise DeviceError(
                "a kernel could not be timed on the device",
                hint="see that its RPC server still runs, and that --target is what the device is",
                detail=str(error),
            ) from error
        return [min(times) * 1e9 for times in zip(*seconds, strict=True)]

    def _build(self, kernel: tirx.PrimFunc, tried: Sequence[Form], library: Path) -> list[str]:
        """One library with a kernel in each form; gives their names in it."""
        fused, kernels = self.fused, {}
        for number, form in enumerate(tried):
            made = schedule_kernel(kernel, fused.lanes, fused.factor, parallel=fused.threads > 1, form=form)
            kernels[f"form{number}"] = made.with_attr("global_symbol", f"form{number}")
        built = tvm.tirx.build(tvm.IRModule(kernels), fused.target)
        built.export_library(str(library), fcompile=self.linker.link_library)
        return list(kernels)


def tune(
    onnx_path: Path,
    target: Target,
    threads: int,
    database: Path,
    *,
    device: str = LOCAL,
    trials: int = 64,
    told: Callable[[Found], None] = lambda _: None,
) -> Tuned:
    """Tune every convolution of a network that the database does not know yet, or knows from fewer trials.

    Args:
        onnx_path: float32 network with static shapes.
        target: What the code is for; the device must be one.
        threads: Threads the network will run on.
        database: Folder of what was found; a file is made or extended for the target.
        device: `local`, or the HOST:PORT on the loopback where the device's RPC server is reached.
        trials: Forms to try for a kernel at most.
        told: Called with each kernel's record as soon as it is kept.

    Raises:
        CompileError: the network cannot be compiled.
        DeviceError: no RPC server answers, or it fails.
        StorageError: the database cannot be written.
        UserError: the address is not on the loopback, or the database is damaged.
    """
    address = None if device == LOCAL else rpc.loopback(device)
    fused = fuse(onnx_path, target, threads)
    tuned = Tuned.load(database, target, threads)
    untried = list(_untried(fused, tuned, target.vector_registers, trials))
    if not untried:
        return tuned
    with _bench(fused, target, address) as bench:
        for name, kernel, tried in untried:
            try:
                record = _tune_kernel(name, kernel, tried, bench)
            except EdgepruneError:
                raise
            except Exception as error:  # TVM raises errors of any kind
                raise unbuilt(onnx_path, target, error) from error
            tuned.found[key(kernel)] = record
            tuned.save()
            told(record)
    return tuned


def _untried(
    fused: Fused, tuned: Tuned, registers: int, trials: int
) -> Iterator[tuple[str, tirx.PrimFunc, list[Form]]]:
    """Kernels for which there is something to try: name, kernel, forms."""
    for name, kernel in fused.module.functions_items():
        if isinstance(kernel, tirx.PrimFunc):
            tried = forms(kernel, fused.factor, registers)[:trials]
            known = tuned.found.get(key(kernel))
            if len(tried) > 1 and (known is None or known.trials < len(tried)):
                yield str(name.name_hint), kernel, tried


@contextmanager
def _bench(fused: Fused, target: Target, address: tuple[str, int] | None) -> Iterator[_Bench]:
    """A bench with a server of this machine, or with one that runs."""
    linker = library_linker(target)
    with tempfile.TemporaryDirectory() as folder, nullcontext(address) if address else rpc.serve() as there:
        yield _Bench(fused, linker, there, Path(folder))


def _tune_kernel(name: str, kernel: tirx.PrimFunc, tried: Sequence[Form], bench: _Bench) -> Found:
    latencies = [
        latency
        for start in range(0, len(tried), _TRIALS_A_LIBRARY)
        for latency in bench.least_ns(kernel, tried[start : start + _TRIALS_A_LIBRARY], _TRIAL_ROUNDS)
    ]
    untuned, best = tried[0], tried[latencies.index(min(latencies))]
    untuned_ns, tuned_ns = bench.least_ns(kernel, [untuned, best], _ROUNDS)
    return Found(name, best, tuned_ns, untuned_ns, len(tried))


def _arguments(kernel: tirx.PrimFunc) -> list[NDArray[np.float32]]:
    """Random inputs of a kernel, and room for its result."""
    random = np.random.default_rng(_SEED)
    shapes = ([int(extent) for extent in parameter.shape] for parameter in kernel.params)
    return [random.standard_normal(shape, np.float32) for shape in shapes]
