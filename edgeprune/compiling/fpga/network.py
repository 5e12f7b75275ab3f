"""A whole int8 network for a core: streams of commands, packed weights, and what is left to the host.

Start with `compile_network`. Mostly there is one stream, between a quantisation of the picture and a dequantisation of
the answer on the host; a network with operators that the core does not have falls into several, with the host between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.compiling.fpga.found import Found
from edgeprune.compiling.fpga.fusing import fuse
from edgeprune.compiling.fpga.geometry import Core
from edgeprune.compiling.fpga.host import HostPart, needed, part
from edgeprune.compiling.fpga.layers import ColumnFold, Int8, column_fold, folded
from edgeprune.compiling.fpga.laying import lay
from edgeprune.compiling.fpga.lowering import Lowering
from edgeprune.compiling.fpga.operations import Operation, Value
from edgeprune.compiling.fpga.placing import place
from edgeprune.compiling.fpga.program import Program
from edgeprune.compiling.fpga.qdq import DEQUANTISE, QUANTISE, Graph
from edgeprune.compiling.fpga.reading import read
from edgeprune.errors import CompileError


@dataclass(frozen=True)
class Port:
    """A tensor in the core's memory that host and core hand over.

    Attributes:
        value: The tensor, as the network has it.
        address: Byte address.
        fold: How the host lays it out for the first layer; None: as it is.
    """

    value: Value
    address: int
    fold: ColumnFold | None = None


@dataclass(frozen=True)
class CoreLayer:
    """One operation and its commands, those before `end` and from the end of the operation before."""

    operation: Operation
    end: int


@dataclass(frozen=True)
class Region:
    """What the core computes without the host.

    Attributes:
        program: Its commands.
        layers: In their order.
        inputs, outputs: What the host writes before and reads after.
        weights_at: Byte address of the packed weights.
        weights: int8 [bytes].
    """

    program: Program
    layers: tuple[CoreLayer, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights_at: int
    weights: Int8


@dataclass(frozen=True)
class Compiled:
    """A network for a core.

    Attributes:
        core: Which.
        steps: Parts for the host and regions for the core, in turns; the last is the host's.
        nodes: Of the network, quantisations apart.
        macs: Multiply-adds of the network.
    """

    core: Core
    steps: tuple[HostPart | Region, ...]
    nodes: int
    macs: int

    @property
    def host_nodes(self) -> tuple[tuple[str, str], ...]:
        """Names and operators of what is left to the host."""
        return tuple(node for step in self.steps if isinstance(step, HostPart) for node in step.nodes)

    @property
    def host_macs(self) -> int:
        """Multiply-adds that are left to the host."""
        return sum(step.macs for step in self.steps if isinstance(step, HostPart))


def compile_network(graph: Graph, core: Core) -> Compiled:
    """Compile an int8 network.

    Raises:
        CompileError: a layer does not fit the core, or nothing of the network can be computed on it.
    """
    found = read(graph)
    known = {operation.target.name for operation in found.operations}
    operations = _alive(graph, found, known)
    if not operations:
        raise CompileError(
            f"{graph.name}: nothing of it can be computed on the core",
            hint="convolutions, linear layers, poolings and additions in int8 can",
        )
    known = {operation.target.name for operation in operations}
    kept = _kept(graph, found, operations, known)
    operations = lay(core, fuse(core, operations, kept), kept)
    regions = _regions(graph, operations, known)
    steps: list[HostPart | Region] = []
    for number in range(max(regions.values()) + 1):
        own = [operation for operation in operations if regions[operation.target] == number]
        inner = {operation.target for operation in own}
        inputs = list(dict.fromkeys(value for operation in own for value in operation.reads if value not in inner))
        made = [value.name for value in inputs if value.name not in known]
        if made:
            steps.append(part(graph, made, known))
        later = {value for one in operations if regions[one.target] > number for value in one.reads}
        wanted = _kept(graph, found, operations, known) | later
        steps.append(_region(core, own, inputs, [value for value in inner if value in wanted]))
    steps.append(part(graph, graph.outputs, known))
    nodes = [node for node in graph.nodes if node.op_type not in (QUANTISE, DEQUANTISE)]
    return Compiled(core, tuple(steps), len(nodes), sum(graph.macs(node) for node in nodes))


def _kept(graph: Graph, found: Found, operations: Sequence[Operation], known: Collection[str]) -> set[Value]:
    """What of the core's results the host reads: for the answer, or for tensors that it makes for the core."""
    fed = {value.name for operation in operations for value in operation.reads if value.name in found.fed}
    reads = set(needed(graph, [*graph.outputs, *sorted(fed)], known)[1])
    return {operation.target for operation in operations if operation.target.name in reads}


def _alive(graph: Graph, found: Found, known: Collection[str]) -> list[Operation]:
    """The operations whose results are read, by another or by the host."""
    operations = list(found.operations)
    while True:
        kept = _kept(graph, found, operations, known)
        read = {value for operation in operations for value in operation.reads} | kept
        alive = [operation for operation in operations if operation.target in read]
        if len(alive) == len(operations):
            return alive
        operations = alive


def _regions(graph: Graph, operations: Sequence[Operation], known: Collection[str]) -> dict[Value, int]:
    """The region of each result: one more than those that the host had to read for what it reads."""
    found: dict[Value, int] = {}
    by_name: dict[str, int] = {}
    for operation in operations:
        number = 0
        for value in operation.reads:
            if value in found:
                number = max(number, found[value])
            elif value.name in by_name:
                number = max(number, by_name[value.name])
            else:
                before = needed(graph, [value.name], known)[1]
                number = max([number, *(by_name[name] + 1 for name in before if name in by_name)])
        found[operation.target] = number
        by_name[operation.target.name] = number
    return found


def _region(core: Core, operations: Sequence[Operation], inputs: Sequence[Value], outputs: Sequence[Value]) -> Region:
    """Place the tensors, then lower layer after layer into one program."""
    folds: dict[Value, ColumnFold] = {}
    own = [_folded_first(core, operation, operations, inputs, folds) for operation in operations]
    laid = [_laid(value, folds.get(value)) for value in inputs]
    placed = place(core, own, laid, outputs)
    lowering = Lowering(Program(core), weights_at=placed.memory_bytes)
    layers = []
    for given, operation, (a, r) in zip(operations, own, placed.rings, strict=True):
        lowering.a, lowering.r = a or lowering.a, r or lowering.r
        skip = None if operation.skip is None else placed.tensors[operation.skip]
        try:
            lowering.add(operation.layer, placed.tensors[operation.source], placed.tensors[operation.target], skip)
        except CompileError as error:
            raise CompileError(
                f"{' + '.join(operation.nodes) or operation.kind}: {error.message}", hint=error.hint
            ) from error
        layers.append(CoreLayer(given, len(lowering.program.commands)))
    entries = [
        Port(value, _address(placed.tensors[there].memory), folds.get(value))
        for value, there in zip(inputs, laid, strict=True)
    ]
    exits = [Port(value, _address(placed.tensors[value].memory)) for value in outputs]
    weights = np.concatenate(lowering.weights) if lowering.weights else np.zeros(0, np.int8)
    return Region(lowering.program, tuple(layers), tuple(entries), tuple(exits), placed.memory_bytes, weights)


def _folded_first(
    core: Core,
    operation: Operation,
    operations: Sequence[Operation],
    inputs: Sequence[Value],
    folds: dict[Value, ColumnFold],
) -> Operation:
    """A layer over what the host writes, with its kernel's columns as channels if that saves passes."""
    layer, source = operation.layer, operation.source
    is_only_reader = sum(source in one.reads for one in operations) == 1
    if source not in inputs or not is_only_reader or layer.groups != 1 or layer.maximum:
        return operation
    columns = int(layer.weights.shape[3])
    if core.planes(source.channels * columns) >= core.planes(source.channels) * columns:
        return operation
    folds[source] = column_fold(layer, source.columns)
    return replace(operation, layer=folded(layer), source=_laid(source, folds[source]))


def _laid(value: Value, fold: ColumnFold | None) -> Value:
    """A tensor as it lies in the memory."""
    if fold is None:
        return value
    return replace(value, channels=value.channels * len(fold.starts), columns=fold.columns)


def _address(memory: int | None) -> int:
    if memory is None:
        raise CompileError("a tensor that host and core hand over has no place in the memory")
    return memory
