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
from edgeprune.shrinking.operators.kernels import is_plain
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
        The largest difference of any output, as a fraction of the masked network's largest output; of whole numbers
        that only rounding chose otherwise, the part that differs.

    Raises:
        ModelError: The masked network does not take the inputs.
        ShrinkError: The networks differ by more than rounding, or the masked one gives no numbers to compare.
    """
    expected = _run(masked, inputs, example_inputs or inputs)
    if example_inputs is not None and not _finite(expected):
        return verify(masked, shrunk, example_inputs)
    try:
        actual = _outputs(shrunk, inputs)
        difference, dtype = _compared(expected, actual)
    except Exception as error:
        raise _fault(masked, f"fails: {error}") from error
    tolerance = TOLERANCES.get(dtype, 1e-5)
    limit = math.inf if _is_rounding(expected) else LIMITS.get(dtype, tolerance)
    # whole numbers chosen by numbers a rounding apart may differ in float32
    limit = math.inf if _same_but_for_choices(expected, actual) else limit
    if difference > limit or (difference > tolerance and not _equal_in_double(masked, shrunk, inputs, tolerance)):
        if not _finite(expected):
            raise ShrinkError(
                f"{type(masked).__name__} itself gives NaN or infinite numbers for the example inputs",
                hint="give example_inputs of the range that the model is made for, or check its weights",
            )
        raise _fault(masked, f"differs from the masked one by {difference:.1e} of its output")
    return difference if math.isfinite(difference) else _figure(expected, actual)


def _finite(outputs: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(output).all()) for output in outputs)


def _fault(masked: nn.Module, what: str) -> ShrinkError:
    hint = "report this with the model: an operator of it is not what edgeprune takes it for"
    if not is_plain(masked):
        hint = "shrink it without the hooks and patches of the model itself, which no trace sees"
    return ShrinkError(f"the shrunk {type(masked).__name__} {what}", hint=hint)


def _run(masked: nn.Module, inputs: tuple[Any, ...], shown: tuple[Any, ...]) -> list[Tensor]:
    try:
        return _outputs(masked, inputs)
    except Exception as error:  # whatever the user's forward raises
        raise unfit(shown, error) from error


def measure(masked: nn.Module, shrunk: nn.Module, batches: Sequence[tuple[Any, ...]]) -> float:
    """The figure that `verify` returns, for networks of which nobody says that they are equal; the worst batch's.

    Of outputs that are whole numbers or truth values it takes the part that differs.

    Raises:
        ShrinkError: The outputs differ in shape, or one is not finite.
    """
    worst = max(_figure(_outputs(masked, batch), _outputs(shrunk, batch)) for batch in batches)
    if not math.isfinite(worst):
        raise ShrinkError(f"the shrunk {type(masked).__name__} gives outputs of another shape, or not finite ones")
    return worst


def _figure(expected: list[Tensor], actual: list[Tensor]) -> float:
    if not _alike(expected, actual):
        return math.inf
    pairs = zip(_whole(expected), _whole(actual), strict=True)
    parts = [float((one != other).double().mean()) for one, other in pairs if one.numel()]
    return max([_compared(_real(expected), _real(actual))[0], *parts])


def _equal_in_double(masked: nn.Module, shrunk: nn.Module, batch: tuple[Any, ...], tolerance: float) -> bool:
    precise, _ = largest_difference(copy.deepcopy(masked).double(), copy.deepcopy(shrunk).double(), _in_double(batch))
    # constants were folded in the network's own precision, so this is as close as double can see them
    return precise <= tolerance


def largest_difference(masked: nn.Module, shrunk: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, torch.dtype]:
    """The largest `exporting.parity` of all outputs, and their type.

    Other shapes, other kinds of numbers and other whole numbers count as infinitely different.
    """
    return _compared(_outputs(masked, inputs), _outputs(shrunk, inputs))


def _outputs(network: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return list(_tensors(network(*copy.deepcopy(inputs))))


def _compared(expected: list[Tensor], actual: list[Tensor]) -> tuple[float, torch.dtype]:
    dtype = next((x.dtype for x in reversed(expected) if x.is_floating_point()), torch.float32)
    if not _alike(expected, actual) or not all(
        torch.equal(*pair) for pair in zip(_whole(expected), _whole(actual), strict=True)
    ):
        return float("inf"), dtype
    expected, actual = _real(expected), _real(actual)
    pairs = [(one.double().cpu(), other.double().cpu()) for one, other in zip(expected, actual, strict=True)]
    if dtype is torch.float64 and _is_rounding(expected) and _is_rounding([*actual, *expected]):
        return 0.0, dtype
    return max((parity(one.numpy(), other.numpy()) for one, other in pairs), default=0.0), dtype


def _is_rounding(outputs: list[Tensor]) -> bool:
    """Whether the outputs are what rounding leaves of zero, such as the mean of an instance normalisation."""
    real = _real(outputs)
    largest = max((float(output.abs().max()) for output in real if output.numel()), default=0.0)
    return bool(real) and 0.0 < largest <= ROUNDING * torch.finfo(real[0].dtype).eps


def _alike(expected: list[Tensor], actual: list[Tensor]) -> bool:
    """Whether the outputs have the same shapes and kinds of numbers."""
    kinds = [[(x.shape, x.is_floating_point()) for x in outputs] for outputs in (expected, actual)]
    return kinds[0] == kinds[1]


def _same_but_for_choices(expected: list[Tensor], actual: list[Tensor]) -> bool:
    """Whether whole numbers differ, and nothing else by more than float32 may."""
    if not _alike(expected, actual) or all(
        torch.equal(*pair) for pair in zip(_whole(expected), _whole(actual), strict=True)
    ):
        return False
    difference, dtype = _compared(_real(expected), _real(actual))
    return difference <= LIMITS.get(dtype, 0.0)


def _real(outputs: list[Tensor]) -> list[Tensor]:
    return [output for output in outputs if output.is_floating_point()]


def _whole(outputs: list[Tensor]) -> list[Tensor]:
    return [output.cpu() for output in outputs if not output.is_floating_point()]


def _tensors(output: Any) -> Iterator[Tensor]:
    for leaf in _pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield torch.view_as_real(leaf) if leaf.is_complex() else leaf


def _in_double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(_pytree.tree_map(widen, inputs))
