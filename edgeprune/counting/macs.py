"""Parameters and multiply-adds of a network, layer by layer. Start with `count`.

A MAC is one multiply-add (fvcore calls it a flop). Convolutions, linear layers and matrix products are counted by
fvcore's formulas; every other operator that the forward pass runs is named in `uncounted_ops`, so that a zero always
means zero.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn.jit_analysis import JitModelAnalysis
from fvcore.nn.jit_handles import (
    addmm_flop_jit,
    bmm_flop_jit,
    conv_flop_count,
    conv_flop_jit,
    einsum_flop_jit,
    get_shape,
    linear_flop_jit,
    matmul_flop_jit,
)
from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError


def _same_convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """A convolution with padding="same" or "valid", which fvcore does not know by that name."""
    return Counter({"conv": conv_flop_count(*map(get_shape, (*inputs[:2], outputs[0])))})


COUNTED = {
    "aten::_convolution": conv_flop_jit,
    "aten::_convolution_mode": _same_convolution,
    "aten::addmm": addmm_flop_jit,
    "aten::bmm": bmm_flop_jit,
    "aten::einsum": einsum_flop_jit,
    "aten::linear": linear_flop_jit,
    "aten::matmul": matmul_flop_jit,
    "aten::mm": matmul_flop_jit,
}
# these compute sizes, not values
BOOKKEEPING = frozenset({"aten::size", "aten::Int", "aten::ScalarImplicit", "aten::IntImplicit", "aten::dim"})


@dataclass(frozen=True)
class LayerCount:
    """One convolution or linear layer: `op` is its class, `macs` are summed over all calls in one forward pass."""

    layer: str
    op: str
    in_channels: int
    out_channels: int
    params: int
    macs: int


@dataclass(frozen=True)
class Counts:
    """Sizes of a network for one input.

    Args:
        params: Numbers in all parameters; shared ones count once, buffers (running statistics, indices) do not.
        nonzero_params: Those that are not zero.
        macs: Multiply-adds of one forward pass over the example inputs, their batch included.
        nonzero_macs: Those that are left if no weight of a layer that is zero is multiplied: what papers count of a
            masked network (Parameterized Structured Pruning, tables 2 to 4, where whole columns are zero).
        uncounted_ops: Operators that were run and not counted, by torch's name, with the number of places.
        layers: Convolution and linear layers in the order of the forward pass.
    """

    params: int
    nonzero_params: int
    macs: int
    nonzero_macs: int
    uncounted_ops: Mapping[str, int]
    layers: tuple[LayerCount, ...]


def count(model: nn.Module, example_inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> Counts:
    """Count parameters and MACs of a model in evaluation mode; the model is not changed.

    Args:
        model: Any module, a torch.fx.GraphModule too.
        example_inputs: A tensor or a tuple of them, such as float32 [1, C, H, W].

    Raises:
        ModelError: The model cannot be run on these inputs.

    Source: fvcore's `conv_flop_jit`, `linear_flop_jit`, `matmul_flop_jit`, `addmm_flop_jit`, `bmm_flop_jit` and
    `einsum_flop_jit`.

    >>> count(nn.Conv2d(3, 8, 3, bias=False), torch.zeros(1, 3, 6, 6)).macs
    3456
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    work = copy.deepcopy(model).eval()
    parameters = list(model.parameters())
    analysis = _Analysis(work, inputs)
    with _order_of_calls(work) as called, _without_log():
        try:
            total = analysis.total()
        except Exception as error:  # anything may come from the model's own forward
            shapes = ", ".join(str(list(one.shape)) for one in inputs)
            raise ModelError(
                f"{type(model).__name__} cannot be run on inputs of shape {shapes}: {error}",
                hint="check the input's shape and the number of channels",
            ) from error
    by_module = analysis.by_module()
    skipped = sum(_skipped(work.get_submodule(name), int(by_module[name])) for name in called)
    return Counts(
        params=sum(one.numel() for one in parameters),
        nonzero_params=sum(int(torch.count_nonzero(one)) for one in parameters),
        macs=int(total),
        nonzero_macs=int(total) - skipped,
        uncounted_ops=dict(sorted(analysis.unsupported_ops().items())),
        layers=tuple(_layer(name, work.get_submodule(name), int(by_module[name])) for name in called),
    )


class _Analysis(JitModelAnalysis):  # type: ignore[misc]
    """fvcore's analysis, with no list of operators that are passed over in silence."""

    def __init__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__(model, inputs)
        self.set_op_handle(**COUNTED)
        self.unsupported_ops_warnings(False)
        self.uncalled_modules_warnings(False)
        self.tracer_warnings("none")

    def _should_ignore_node(self, node: Any) -> bool:
        kind = str(node.kind())
        run_by_python = kind.startswith(("prim::PythonOp", "prim::CallFunction"))
        return kind in BOOKKEEPING or (kind.startswith("prim::") and not run_by_python)


def _skipped(layer: nn.Module, macs: int) -> int:
    """Multiply-adds by zeros; each weight is multiplied equally often."""
    weight = layer.get_parameter("weight") if "weight" in layer._parameters else getattr(layer, "weight")  # noqa: B009
    return macs // max(weight.numel(), 1) * int((weight == 0).sum())


def _layer(name: str, module: nn.Module, macs: int) -> LayerCount:
    params = sum(one.numel() for one in module.parameters(recurse=False))
    if isinstance(module, _ConvNd):
        return LayerCount(name, type(module).__name__, module.in_channels, module.out_channels, params, macs)
    if isinstance(module, nn.Linear):
        return LayerCount(name, type(module).__name__, module.in_features, module.out_features, params, macs)
    raise TypeError(f"{type(module).__name__} is neither a convolution nor linear")


@contextmanager
def _order_of_calls(model: nn.Module) -> Iterator[list[str]]:
    """A list that fills with the names of convolution and linear layers as the model runs."""
    called: list[str] = []

    def noting(name: str) -> Any:
        def note(module: nn.Module, inputs: object) -> None:
            if name not in called:
                called.append(name)

        return note

    layers = [(name, one) for name, one in model.named_modules() if isinstance(one, _ConvNd | nn.Linear)]
    handles = [one.register_forward_pre_hook(noting(name)) for name, one in layers]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_log() -> Iterator[None]:
    """fvcore reports through the log what stands in the result anyway."""
    log = logging.getLogger("fvcore.nn.jit_analysis")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
