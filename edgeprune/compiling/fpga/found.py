"""What was found in an int8 graph so far. Start with `Found`; `reading.py` fills it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgeprune.compiling.fpga.operations import Bounds, Operation, Value, View, Window, choice, weighted
from edgeprune.compiling.fpga.qdq import Graph
from edgeprune.errors import CompileError

Finish = Callable[["Found", Value, Bounds], list[Operation]]


@dataclass(frozen=True)
class Pending:
    """A float32 tensor that is not quantised yet.

    Attributes:
        nodes: What was computed.
        finish: Makes its operations for a target and bounds.
        bounds: Of the activations so far.
    """

    nodes: tuple[str, ...]
    finish: Finish
    bounds: Bounds = field(default_factory=Bounds)


@dataclass
class Found:
    """The operations of a network, as far as it has been read.

    Attributes:
        graph: The network.
        operations: In an order in which they can be computed.
        fed: int8 tensors of the file that the host makes, by name.
        quantised: int8 tensors of the file, by name, as the core has them.
        views: float32 tensors that are exactly views of int8 ones.
        pending: float32 tensors that the core can compute once they are quantised.
    """

    graph: Graph
    operations: list[Operation] = field(default_factory=list)
    fed: dict[str, Value] = field(default_factory=dict)
    quantised: dict[str, View] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    _copies: dict[View, Value] = field(default_factory=dict)

    def tensor(self, view: View) -> Value:
        """A view as a tensor of its own; it is copied once, unless it is one already.

        Raises:
            CompileError: a picture that is laid flat is copied by nobody.
        """
        if view.is_whole:
            return view.value
        if view.flat:
            raise CompileError(f"{view.value.name}: a flat picture is read by a linear layer alone")
        if view not in self._copies:
            value = view.value
            target = Value(f"{value.name}/view{len(self._copies)}", view.channels, *view.picture, value.quanta)
            layer = weighted(choice(view), Window(view.step), value.quanta, value.quanta, Bounds())
            self.operations.append(Operation((), "Copy", layer, value, target))
            self._copies[view] = target
        return self._copies[view]

    def forget(self, since: int) -> None:
        """Take back the operations from a place on."""
        gone = {operation.target for operation in self.operations[since:]}
        self._copies = {view: value for view, value in self._copies.items() if value not in gone}
        del self.operations[since:]
