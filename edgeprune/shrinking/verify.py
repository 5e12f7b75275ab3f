"""The proof of a shrunk network: it gives the masked network's numbers.

Start with `verify`. Rounding grows with depth, so a float32 network that misses its tolerance is compared
once more in float64, where rounding can not hide or feign a fault of the analysis. That excuses a difference up to
`LIMITS` and no more: what the user runs is the float32 network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from edgeprune.errors import ShrinkError
from edgeprune.exporting import PARITY_TOLERANCE, parity
from edgeprune.shrinking.shapes import unfit

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
"""Largest difference by the largest output, for each type of number (DESIGN.md; half types by their rounding)."""

LIMITS = {torch.float32: PARITY_TOLERANCE, torch.bfloat16: 2e-1, torch.float16: 2e-2}
"""Largest difference that passes as rounding if float64 agrees: for float32 what two forms of a network may differ by.

For half types a choice: four times the tolerance. float64 is excused nothing.
"""

ROUNDING = 64
"""Outputs of at most so many units of rounding are compared in float64, and there taken for zero. A choice."""


def verify(
    masked: nn.Module, shrunk: nn.Module, inputs: tuple[Any, ...], example_inputs: tuple[Any, ...] | None = None
) -> float:
    """Compare two networks in eval mode on some inputs, such as `probing.probe` draws.

    Args:
        masked: The reference.
        shrunk: What is to give the same numbers.
        inputs: Positional arguments of both.
        example_inputs: Taken instead where the masked network makes NaN or infinities of `inputs`, as a logarithm does
            of random numbers.

    Returns:
        The largest difference of any output, as a fraction of the masked network's largest output.

    Raises:
        ModelError: The masked network does not take the inputs.
        ShrinkError: The networks differ by more than rounding.
    """
    expected = _run(masked, inputs, example_inputs or inputs)
    if example_inputs is not None and not all(bool(torch.isfinite(output).all()) for output in expected):
        return verify(masked, shrunk, example_inputs)
    try:
        difference, dtype = _compared(expected, _outputs(shrunk, inputs))
    except Exception as error:
        raise _fault(masked, f"fails: {error}") from error
    tolerance = TOLERANCES.get(dtype, 1e-5)
    limit = math.inf if _is_rounding(expected) else LIMITS.get(dtype, tolerance)
    if difference > limit or (difference > tolerance and not _equal_in_double(masked, shrunk, inputs, tolerance)):
        raise _fault(masked, f"differs from the masked one by {difference:.1e} of its output")
    return difference


def _fault(masked: nn.Module, what: str) -> ShrinkError:
    return ShrinkError(
        f"the shrunk {type(masked).__name__} {what}",
        hint="report this with the model: an operator of it is not what edgeprune takes it for",
    )


def _run(masked: nn.Module, inputs: tuple[Any, ...], shown: tuple[Any, ...]) -> list[Tensor]:
    try:
        return _outputs(masked, inputs)
    except Exception as error:  # whatever the user's forward raises
        raise unfit(shown, error) from error


def measure(masked: nn.Module, shrunk: nn.Module, batches: Sequence[tuple[Any, ...]]) -> float:
    """The figure that `verify` returns, for networks of which nobody says that they are equal; the worst batch's.

    Raises:
        ShrinkError: The outputs differ in shape, or one is not finite.
    """
    worst = max(largest_difference(masked, shrunk, batch)[0] for batch in batches)
    if not math.isfinite(worst):
        raise ShrinkError(f"the shrunk {type(masked).__name__} gives outputs of another shape, or not finite ones")
    return worst


def _equal_in_double(masked: nn.Module, shrunk: nn.Module, batch: tuple[Any, ...], tolerance: float) -> bool:
    precise, _ = largest_difference(copy.deepcopy(masked).double(), copy.deepcopy(shrunk).double(), _in_double(batch))
    # constants were folded in the network's own precision, so this is as close as double can see them
    return precise <= tolerance


def largest_difference(masked: nn.Module, shrunk: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, torch.dtype]:
    """The largest `exporting.parity` of all outputs, and their type; other shapes count as infinitely different."""
    return _compared(_outputs(masked, inputs), _outputs(shrunk, inputs))


def _outputs(network: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return list(_tensors(network(*copy.deepcopy(inputs))))


def _compared(expected: list[Tensor], actual: list[Tensor]) -> tuple[float, torch.dtype]:
    if [x.shape for x in expected] != [x.shape for x in actual]:
        return float("inf"), torch.float64
    pairs = [(one.double().cpu(), other.double().cpu()) for one, other in zip(expected, actual, strict=True)]
    dtype = expected[-1].dtype if expected else torch.float64
    if dtype is torch.float64 and _is_rounding(expected) and _is_rounding(actual):
        return 0.0, dtype
    return max((parity(one.numpy(), other.numpy()) for one, other in pairs), default=0.0), dtype


def _is_rounding(outputs: list[Tensor]) -> bool:
    """Whether the outputs are what rounding leaves of zero, such as the mean of an instance normalisation."""
    largest = max((float(output.abs().max()) for output in outputs if output.numel()), default=0.0)
    return 0.0 < largest <= ROUNDING * torch.finfo(outputs[0].dtype).eps


def _tensors(output: Any) -> Iterator[Tensor]:
    for leaf in _pytree.tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            yield leaf


def _in_double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(_pytree.tree_map(widen, inputs))
