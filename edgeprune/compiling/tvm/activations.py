"""Rules of the operators that compute each number by itself. Start with `ACTIVATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te

from edgeprune.compiling.tvm.exponential import exp, sigmoid, tanh
from edgeprune.compiling.tvm.graph import Node, clip_bounds
from edgeprune.compiling.tvm.layout import Stored
from edgeprune.compiling.tvm.lower import ELEMENTWISE, Lowering, Rule, Value
from edgeprune.compiling.tvm.operands import with_constant


def _unary(make: Callable[..., relax.Expr]) -> Rule:
    """The rule of an operator that `make` builds from a value and the operator's attributes."""

    def rule(lowering: Lowering, node: Node) -> Value | None:
        if not lowering.can_store(node.inputs[0]):
            return None
        image = lowering.stored(node.inputs[0])
        value = make(image.value, **node.attrs)
        return Stored(lowering.builder.emit(value), image.channels, image.rank)

    return rule


def _function(name: str, function: Callable[[Any], Any]) -> Rule:
    """The rule of an operator that is a function of one number."""

    def rule(lowering: Lowering, node: Node) -> Value | None:
        if not lowering.can_store(node.inputs[0]):
            return None
        image = lowering.stored(node.inputs[0])

        def compute(x: te.Tensor) -> te.Tensor:
            return te.compute(x.shape, lambda *at: function(x(*at)), name=name)

        return Stored(lowering.emit(compute, image.value, hint=name, pattern=ELEMENTWISE), image.channels, image.rank)

    return rule


def _hard_sigmoid(x: relax.Expr, alpha: float = 0.2, beta: float = 0.5) -> relax.Expr:
    scaled = relax.op.multiply(x, relax.const(alpha, "float32"))
    return relax.op.clip(relax.op.add(scaled, relax.const(beta, "float32")), 0.0, 1.0)


def _hard_swish(x: relax.Expr) -> relax.Expr:
    return relax.op.multiply(x, _hard_sigmoid(x, 1 / 6, 0.5))


def _leaky_relu(x: relax.Expr, alpha: float = 0.01) -> relax.Expr:
    return relax.op.nn.leakyrelu(x, alpha)


def _clip(lowering: Lowering, node: Node) -> Value | None:
    bounds = clip_bounds(node, lowering.graph.constants)
    if bounds is None or not lowering.can_store(node.inputs[0]):
        return None
    image, (low, high) = lowering.stored(node.inputs[0]), bounds
    limits = np.finfo(np.float32)
    value = relax.op.clip(
        image.value, float(limits.min) if low is None else low, float(limits.max) if high is None else high
    )
    return Stored(lowering.builder.emit(value), image.channels, image.rank)


def _p_relu(lowering: Lowering, node: Node) -> Value | None:
    """A slope for each channel below zero."""
    slope = lowering.constant(node.inputs[1])
    if slope is None or not lowering.can_store(node.inputs[0]):
        return None
    image = lowering.stored(node.inputs[0])
    zero = relax.const(0.0, "float32")
    below = Stored(lowering.builder.emit(relax.op.minimum(image.value, zero)), image.channels, image.rank)
    scaled = with_constant(lowering, relax.op.multiply, below, slope)
    if not isinstance(scaled, Stored):
        return None
    value = relax.op.add(relax.op.nn.relu(image.value), scaled.value)
    return Stored(lowering.builder.emit(value), image.channels, image.rank)


ACTIVATIONS: dict[str, Rule] = {
    "Abs": _unary(relax.op.abs),
    "Clip": _clip,
    "Exp": _function("exp", exp),
    "HardSigmoid": _unary(_hard_sigmoid),
    "HardSwish": _unary(_hard_swish),
    "LeakyRelu": _unary(_leaky_relu),
    "Neg": _unary(relax.op.negative),
    "PRelu": _p_relu,
    "Relu": _unary(relax.op.nn.relu),
    "Sigmoid": _function("sigmoid", sigmoid),
    "Sqrt": _unary(relax.op.sqrt),
    "Tanh": _function("tanh", tanh),
}
