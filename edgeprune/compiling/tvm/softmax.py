"""Rule of Softmax over the channels of an image or the last axis of anything: row by row, in vectors.

A row's maximum and its sum are kept in all lanes of a vector, so that nothing leaves the vector registers. Start with
`softmax`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from tvm import relax, tirx

from edgeprune.compiling.tvm.exponential import exp
from edgeprune.compiling.tvm.gather import lanes_from, loop, scheduled_kernel, sequence, splat
from edgeprune.compiling.tvm.graph import Node
from edgeprune.compiling.tvm.layout import Stored, vector_lanes
from edgeprune.compiling.tvm.lower import Lowering, Value

_LEAST = float(np.finfo(np.float32).min)
_BY_AXIS = 13  # the opset since when one axis alone is meant


def softmax(lowering: Lowering, node: Node) -> Value | None:
    """Rule of Softmax."""
    value = lowering.values.get(node.inputs[0])
    axis = node.attrs.get("axis", -1 if lowering.graph.opset >= _BY_AXIS else 1)
    if isinstance(value, Stored):
        images = lowering.graph.opset >= _BY_AXIS or value.rank == 2
        if axis % value.rank != 1 or not images:
            return None
        return Stored(_emit(lowering, value.value, value.channels), value.channels, value.rank)
    shape = lowering.graph.shapes.get(node.inputs[0], ())
    last = len(shape) - 1
    if value is None or not shape or axis % len(shape) != last or value.ty.dtype != "float32":
        return None
    rows = lowering.builder.emit(relax.op.reshape(value, (1, prod(shape[:-2]), prod(shape[-2:-1]), shape[last])))
    return lowering.builder.emit(relax.op.reshape(_emit(lowering, rows, shape[last]), shape))


def _emit(lowering: Lowering, value: relax.Expr, channels: int) -> relax.Expr:
    shape = tuple(int(extent) for extent in value.ty.shape)
    kernel = _Kernel(shape, channels, vector_lanes(channels, lowering.lanes)).function()
    name = lowering.builder.add_func(kernel, "softmax")
    return lowering.builder.emit(relax.call_tir(name, [value], relax.TensorType(shape, "float32")))


class _Kernel:
    """The loops over rows, float32 [N, H, W, S] of which `channels` count."""

    def __init__(self, shape: tuple[int, ...], channels: int, lanes: int) -> None:
        self.shape, self.channels, self.lanes = shape, channels, lanes
        self.given, self.result = (tirx.decl_buffer(shape, "float32", name) for name in ("given", "result"))
        halvings = lanes.bit_length()
        self.most, self.total = (tirx.decl_buffer((halvings * lanes,), "float32", name) for name in ("most", "total"))

    def function(self) -> tirx.PrimFunc:
        """The kernel."""
        outer, col = tirx.Var("outer", "int32"), tirx.Var("col", "int32")
        batch, rows, cols, _ = self.shape
        row = self._row([tirx.floordiv(outer, rows), tirx.floormod(outer, rows), col])
        return scheduled_kernel([self.given, self.result], loop(outer, batch * rows, loop(col, cols, row)))

    def _row(self, pixel: list[Any]) -> tirx.Stmt:
        held = lanes_from(len(self._halves) * self.lanes, self.lanes)
        most, total = (tirx.BufferLoad(buffer, [held]) for buffer in (self.most, self.total))

        def raised(at: Any, lanes: int) -> tirx.Stmt:
            power = tirx.BufferLoad(self.given, [*pixel, lanes_from(at, lanes)]) - self._first(most, lanes)
            return tirx.BufferStore(self.result, exp(power), [*pixel, lanes_from(at, lanes)])

        def divided(at: Any, lanes: int) -> tirx.Stmt:
            value = tirx.BufferLoad(self.result, [*pixel, lanes_from(at, lanes)])
            part = value / self._first(total, lanes)
            return tirx.BufferStore(self.result, part, [*pixel, lanes_from(at, lanes)])

        return sequence(
            [
                *self._reduced(self.most, self.given, pixel, _LEAST, tirx.max),
                *self._each(raised),
                *self._reduced(self.total, self.result, pixel, 0.0, lambda left, right: left + right),
                *self._each(divided),
            ]
        )

    @property
    def _halves(self) -> list[int]:
        return [self.lanes >> i for i in range(1, self.lanes.bit_length())]

    def _each(self, statement: Callable[[Any, int], tirx.Stmt]) -> list[tirx.Stmt]:
        """A statement for each whole vector of the row, and for the rest of it."""
        at, (whole, rest) = tirx.Var("vector", "int32"), divmod(self.channels, self.lanes)
        loops = [loop(at, whole, statement(at * self.lanes, self.lanes))] if whole else []
        return [*loops, statement(whole * self.lanes, rest)] if rest else loops

    def _reduced(
        self, held: Any, source: Any, pixel: list[Any], neutral: float, join: Callable[[Any, Any], Any]
    ) -> list[tirx.Stmt]:
        """All of a row joined, in every lane of the last vector of `held`: lane by lane, then lanes by halves."""
        first = lanes_from(0, self.lanes)

        def joined(at: Any, lanes: int) -> tirx.Stmt:
            part = tirx.BufferLoad(source, [*pixel, lanes_from(at, lanes)])
            return tirx.BufferStore(held, join(tirx.BufferLoad(held, [first]), self._filled(part, neutral)), [first])

        statements = [
            tirx.AllocBuffer(held),
            tirx.BufferStore(held, splat(neutral, self.lanes), [first]),
            *self._each(joined),
        ]
        for number, half in enumerate(self._halves):
            value = tirx.BufferLoad(held, [lanes_from(number * self.lanes, self.lanes)])
            other = tirx.Shuffle([value], [lane ^ half for lane in range(self.lanes)])
            at = [lanes_from((number + 1) * self.lanes, self.lanes)]
            statements.append(tirx.BufferStore(held, join(value, other), at))
        return statements

    def _filled(self, part: Any, value: float) -> Any:
        """A vector's first lanes, and a number in the others."""
        lanes = int(part.ty.dtype.lanes)
        if lanes == self.lanes:
            return part
        return tirx.Shuffle([part, splat(value, self.lanes)], [*range(lanes), *[lanes] * (self.lanes - lanes)])

    def _first(self, vector: Any, lanes: int) -> Any:
        return vector if lanes == self.lanes else tirx.Shuffle([vector], [*range(lanes)])
