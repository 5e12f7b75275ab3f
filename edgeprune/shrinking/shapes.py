"""The shape of every tensor of a traced network for the example inputs, without running it where that can be avoided.

Start with `shapes_of`. The commonest layers have their shapes by rule, other operators run on the meta device, which
computes no numbers. What has no meta kernel, or asks for a tensor's values, makes the whole network run once.
"""

from __future__ import annotations

import contextlib
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils import _pytree

from edgeprune.errors import ModelError
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS, is_plain
from edgeprune.shrinking.operators.pointwise import FUNCTIONS, MODULES
from edgeprune.shrinking.tracing import Traced

Shapes = dict[fx.Node, torch.Size | None]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def shapes_of(traced: Traced, example_inputs: tuple[Any, ...]) -> Shapes:
    """For each node the shape of its output for inputs of these shapes, None where it is no tensor.

    Raises:
        ModelError: forward fails on the example inputs.
    """
    with torch.no_grad():
        with contextlib.suppress(Exception):  # whatever the meta device can not do, the real one tells better
            return _MetaReader(traced).read(*_as_meta(example_inputs))
        try:
            return _Reader(traced).read(*example_inputs)
        except Exception as error:
            raise unfit(example_inputs, error) from error


def meta_shapes(traced: Traced, inputs: tuple[Any, ...]) -> Shapes | None:
    """The same where the meta device can tell, or None."""
    with torch.no_grad(), contextlib.suppress(Exception):
        return _MetaReader(traced).read(*_as_meta(inputs))
    return None


def values_of(traced: Traced, inputs: tuple[Any, ...]) -> dict[fx.Node, Any]:
    """What each node gives for these inputs, all at once in memory."""
    with torch.no_grad():
        return _Recorder(traced).read_values(*inputs)


def unfit(example_inputs: tuple[Any, ...], error: Exception) -> ModelError:
    """What to tell the user whose model does not take the example inputs."""
    shown = ", ".join(str(list(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in example_inputs)
    cause = str(error).partition("\n")[0] or type(error).__name__
    return ModelError(
        f"forward fails on example inputs of shape {shown}: {cause}",
        hint="give example_inputs of the shape, type and device that the model takes",
    )


class _Reader(fx.Interpreter):
    """Runs the network once and notes the shape of each tensor."""

    frees_values = True

    def __init__(self, traced: Traced) -> None:
        # it would list all of the model's modules, which `traced` knows
        super().__init__(nn.Module(), garbage_collect_values=self.frees_values, graph=traced.graph)
        self.traced = traced
        self.shapes: Shapes = {}

    def read(self, *inputs: Any) -> Shapes:
        """The shapes for these inputs."""
        self.run(*inputs, enable_io_processing=False)
        return self.shapes

    def fetch_attr(self, target: str) -> Any:
        return self.traced.attribute(target)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = result.shape if isinstance(result, Tensor) and n.op != "output" else None
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.traced.modules[target](*args, **kwargs)


class _Recorder(_Reader):
    """Runs the network once and keeps what each node gives."""

    frees_values = False

    def read_values(self, *inputs: Any) -> dict[fx.Node, Any]:
        self.read(*inputs)
        return self.env


class _MetaReader(_Reader):
    """The same with tensors that have a shape and no numbers."""

    frees_values = False

    def read(self, *inputs: Any) -> Shapes:
        self.args_iter = iter(inputs)
        for node in self.graph.nodes:
            self.env[node] = self.run_node(node)
        return self.shapes

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        if n.op == "call_module" and len(n.args) == 1 and not n.kwargs and isinstance(n.args[0], fx.Node):
            given = self.env[n.args[0]]
            known = _by_rule(self.traced.modules[str(n.target)], given) if isinstance(given, Tensor) else None
            if known is not None:
                self.shapes[n] = known.shape
                return known
        # what fx does here for its error messages takes longer than the operators
        args, kwargs = fx.node.map_arg((n.args, n.kwargs), self.env.__getitem__)
        result = getattr(self, n.op)(n.target, args, kwargs)
        self.shapes[n] = result.shape if isinstance(result, Tensor) else None
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if target in FUNCTIONS and len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1:
            return tensors[0]
        if target is F.adaptive_avg_pool2d and len(args) == 2 and len(tensors) == 1:
            return _pooled(tensors[0], args[1])
        return target(*args, **kwargs)

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _as_meta(super().get_attr(target, args, kwargs))

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.traced.modules[target]
        tensors = dict(chain(module.named_parameters(), module.named_buffers()))
        if not tensors:
            return module(*args, **kwargs)
        return torch.func.functional_call(module, _as_meta(tensors), args, kwargs)


def _as_meta(values: Any) -> Any:
    return _pytree.tree_map(lambda value: value.to("meta") if isinstance(value, Tensor) else value, values)


def _by_rule(module: nn.Module, x: Tensor) -> Tensor | None:
    """An empty output of a well-known layer, None for any other layer and for inputs that it may refuse."""
    kind: Any = type(module)
    if not is_plain(module):
        return None
    if kind in MODULES:
        return x
    if kind in CONVOLUTIONS:
        return _convolved(module, x)
    if isinstance(module, _NORMS) and kind in _NORMS:
        fits = x.dim() == _NORMS.index(kind) + 3 and x.shape[1] == module.num_features
        return x if fits and module._buffers["running_mean"] is not None else None
    if isinstance(module, nn.Linear) and kind is nn.Linear and x.dim() and x.shape[-1] == module.in_features:
        return _empty((*x.shape[:-1], module.out_features), x)
    if isinstance(module, nn.AdaptiveAvgPool2d) and kind is nn.AdaptiveAvgPool2d:
        return _pooled(x, module.output_size)
    return None


def _convolved(module: nn.Module, x: Tensor) -> Tensor | None:
    if not isinstance(module, CONVOLUTIONS):
        return None
    shape = x.shape
    if len(shape) != len(module.kernel_size) + 2 or shape[1] != module.in_channels:
        return None
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    settings = zip(shape[2:], module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
    space = [(size + 2 * pad - far * (kernel - 1) - 1) // step + 1 for size, kernel, step, pad, far in settings]
    return _empty((shape[0], module.out_channels, *space), x) if min(space) > 0 else None


def _pooled(x: Tensor, size: Any) -> Tensor:
    """F.adaptive_avg_pool2d(x, size), whose mean over all pixels takes a while to find its shape."""
    if x.dim() == 4 and x.numel() and size in (1, (1, 1)):
        return _empty((*x.shape[:2], 1, 1), x)
    return F.adaptive_avg_pool2d(x, size)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """like.new_empty(shape), which takes ten times as long on the meta device."""
    return torch.empty(shape, dtype=like.dtype, device=like.device)
