"""The proof of a shrunk network: it gives the masked network's numbers.

Start with `largest_difference`. Rounding grows with depth, so a float32 network that misses its tolerance is compared
once more in float64, where rounding can not hide or feign a fault of the analysis. That excuses a difference up to
`LIMITS` and no more: what the user runs is the float32 network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from edgeprune.errors import ShrinkError
from edgeprune.exporting import PARITY_TOLERANCE, parity

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
"""Largest difference by the largest output, for each type of number (DESIGN.md; half types by their rounding)."""

LIMITS = {torch.float32: PARITY_TOLERANCE, torch.bfloat16: 2e-1, torch.float16: 2e-2}
"""Largest difference that passes as rounding if float64 agrees: for float32 what two forms of a network may differ by.

For half types a choice: four times the tolerance. float64 is excused nothing.
"""


def verify(masked: nn.Module, shrunk: nn.Module, example_inputs: tuple[Any, ...], seed: int = 0) -> float:
    """Compare two networks in eval mode on the example inputs and on random ones of the same shapes.

    Returns:
        The largest difference of any output, as a fraction of the masked network's largest output.

    Raises:
        ShrinkError: The networks differ by more than rounding.
    """
    worst = 0.0
    for batch in _batches(example_inputs, seed):
        difference, dtype = largest_difference(masked, shrunk, batch)
        tolerance = TOLERANCES.get(dtype, 1e-5)
        limit = LIMITS.get(dtype, tolerance)
        if difference > limit or (difference > tolerance and not _equal_in_double(masked, shrunk, batch, tolerance)):
            raise ShrinkError(
                f"the shrunk {type(masked).__name__} differs from the masked one by {difference:.1e} of its output",
                hint="report this with the model: an operator of it is not what edgeprune takes it for",
            )
        worst = max(worst, difference)
    return worst


def measure(masked: nn.Module, shrunk: nn.Module, example_inputs: tuple[Any, ...], seed: int = 0) -> float:
    """The figure that `verify` returns, for networks of which nobody says that they are equal.

    Raises:
        ShrinkError: The outputs differ in shape, or one is not finite.
    """
    worst = max(largest_difference(masked, shrunk, batch)[0] for batch in _batches(example_inputs, seed))
    if not math.isfinite(worst):
        raise ShrinkError(f"the shrunk {type(masked).__name__} gives outputs of another shape, or not finite ones")
    return worst


def _batches(example_inputs: tuple[Any, ...], seed: int) -> list[tuple[Any, ...]]:
    return [example_inputs, _random_like(example_inputs, seed)]


def _equal_in_double(masked: nn.Module, shrunk: nn.Module, batch: tuple[Any, ...], tolerance: float) -> bool:
    precise, _ = largest_difference(copy.deepcopy(masked).double(), copy.deepcopy(shrunk).double(), _in_double(batch))
    # constants were folded in the network's own precision, so this is as close as double can see them
    return precise <= tolerance


def largest_difference(masked: nn.Module, shrunk: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, torch.dtype]:
    """The largest `exporting.parity` of all outputs, and their type; other shapes count as infinitely different."""
    with torch.no_grad():
        expected = list(_tensors(masked(*copy.deepcopy(inputs))))
        actual = list(_tensors(shrunk(*copy.deepcopy(inputs))))
    if [x.shape for x in expected] != [x.shape for x in actual]:
        return float("inf"), torch.float64
    pairs = [(one.double().cpu(), other.double().cpu()) for one, other in zip(expected, actual, strict=True)]
    worst = max((parity(one.numpy(), other.numpy()) for one, other in pairs), default=0.0)
    return worst, expected[-1].dtype if expected else torch.float64


def _tensors(output: Any) -> Iterator[Tensor]:
    for leaf in _pytree.tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            yield leaf


def _random_like(inputs: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)

    def draw(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

    return tuple(_pytree.tree_map(draw, inputs))


def _in_double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(_pytree.tree_map(widen, inputs))
