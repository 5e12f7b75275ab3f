"""The papers' own method: null gradients on a positive linear copy say which channels and weights are connected.

Algorithm 1 of `effects_of_structured_pruning_2022` (section 3). Start with `connectivity`. In the copy the weights are
their masks, biases are gone, and activations and batch normalisations do nothing; with an input of ones and positive
weights no value and no gradient is zero by chance, so one pass forwards and one backwards find what is connected. The
sum of two tensors has an identity for each operand, whose gradient is the operand's own.

Three things are added. Each tensor is set back to ones and zeros, forwards and backwards, so that deep networks neither
overflow nor underflow. A kernel counts as a whole, since which of its taps meet the image depends on the image's size.
And operators that the paper does not speak of have a rule below; one that has none is named in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from edgeprune.errors import NoRuleError
from edgeprune.shrinking.channels import Flags
from edgeprune.shrinking.forms import Form
from edgeprune.shrinking.graph import Network, Site
from edgeprune.shrinking.operators import pointwise
from edgeprune.shrinking.operators.kernels import LAYERS, TRANSPOSED

_OWN_CHANNEL = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip

# linear, with weights that are not negative, or a choice of places
_LINEAR_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d,
    nn.CircularPad3d, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Upsample,
    nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
)  # fmt: skip
_LINEAR = frozenset(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d boolean_dispatch pad interpolate"
    " upsample pixel_shuffle pixel_unshuffle channel_shuffle mean sum amax cat concat stack flatten reshape view"
    " view_as reshape_as permute transpose swapaxes swapdims movedim t squeeze unsqueeze unflatten chunk split"
    " tensor_split unbind narrow getitem expand expand_as repeat repeat_interleave contiguous clone detach getattr size"
    " dim numel".split()
)
_SUMS = frozenset("add sub iadd isub".split())
_PRODUCTS = frozenset("mul div truediv imul itruediv multiply".split())
_IDENTITIES = frozenset(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout stochastic_depth to float".split()
)


@dataclass(frozen=True)
class Connectivity:
    """What is connected in a masked network.

    Attributes:
        reached: For each tensor bool [C]: the input reaches the channel (its value in the copy is not null).
        needed: For each tensor bool [C]: the channel reaches an output (its gradient in the copy is not null).
        kernels: For each convolution and linear layer by name, bool [out, in / groups]: kernels that are not zero and
            whose gradient is not null.
    """

    reached: Mapping[fx.Node, Flags]
    needed: Mapping[fx.Node, Flags]
    kernels: Mapping[str, Flags]

    @property
    def alive(self) -> dict[fx.Node, Flags]:
        """For each tensor bool [C]: channels on a way from an input to an output."""
        return {node: flags & self.needed[node] for node, flags in self.reached.items()}


def connectivity(network: Network, example_inputs: tuple[Any, ...], *, factors_matter: bool = False) -> Connectivity:
    """Find what is connected, by one pass forwards and one backwards on the positive linear copy, in float64.

    Args:
        network: The traced network; it is not changed.
        example_inputs: Its inputs; only shapes and integers count.
        factors_matter: A product needs both factors, even where one is not connected to the input: its bias may make
            it a number other than zero. Without, a product is connected where both factors are, or where one is and an
            activation that maps zero to another number made the other.

    Raises:
        NoRuleError: An operator has no rule; the message names it.
    """
    copy = _PositiveCopy(network, factors_matter)
    with torch.enable_grad():
        outputs = copy.run(*example_inputs, enable_io_processing=False)
    ends = [x for x in _pytree.tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
    if ends:
        torch.autograd.backward(ends, [torch.ones_like(x) for x in ends])
    return Connectivity(copy.reached, copy.needed, {name: _alive(*pair) for name, pair in copy.weights.items()})


def _alive(layer: nn.Module, mask: Tensor) -> Flags:
    grad = torch.zeros_like(mask) if mask.grad is None else mask.grad
    flags = (mask != 0) & (grad != 0)
    if isinstance(layer, TRANSPOSED):
        flags = flags.transpose(0, 1)
    return np.asarray(flags.flatten(2).any(2).numpy() if flags.dim() > 2 else flags.numpy())


class _Unit(torch.autograd.Function):
    """Ones for all that is not null, in values and in gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x != 0).to(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return (grads[0] != 0).to(grads[0])


class _PositiveCopy(fx.Interpreter):
    """Runs the copy, and notes for each tensor which channels hold a value and which get a gradient."""

    def __init__(self, network: Network, factors_matter: bool) -> None:
        super().__init__(network.root.model, graph=network.root.graph)
        self.extra_traceback = False
        self.reached: dict[fx.Node, Flags] = {}
        self.needed: dict[fx.Node, Flags] = {}
        self.weights: dict[str, tuple[nn.Module, Tensor]] = {}
        self._sites = network.by_node
        self._modules = network.root.modules
        self._factors_matter = factors_matter

    def run_node(self, n: fx.Node) -> Any:
        result = self._result(self._sites[n])
        form = self._sites[n].form
        if not isinstance(result, Tensor) or not result.is_floating_point() or form is None or n.op == "output":
            return result
        result = _Unit.apply(result)  # type: ignore[no-untyped-call]
        self.reached[n] = _by_channel(result, form)
        self.needed[n] = np.zeros_like(self.reached[n])
        if result.requires_grad:
            # a hook that held the copy, which holds the masks, would be a cycle through autograd that nothing frees
            result.register_hook(partial(_note_gradient, self.needed, n, form))
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._modules[target](*args, **kwargs)

    def _result(self, site: Site) -> Any:
        """What the copy makes of one node: an input of ones, a parameter's mask, or what the node's rule says."""
        node = site.node
        plain = super().run_node
        if node.op in ("placeholder", "get_attr"):
            value = plain(node)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            if node.op == "get_attr":
                return (value.detach() != 0).double().cpu()
            return torch.ones(value.shape, dtype=torch.float64, requires_grad=True)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        tensors = [x for x in _pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.is_floating_point()]
        if node.op == "output" or not tensors:
            return plain(node)
        if node.op == "call_module":
            return self._module(site, tensors[0], partial(plain, node))
        return self._function(site, tensors, args, partial(plain, node))

    def _module(self, site: Site, x: Tensor, plain: Callable[[], Any]) -> Any:
        module = site.module
        if isinstance(module, LAYERS):
            weight = self._mask(site.name, module)
            given = {"weight": weight} | ({} if module.bias is None else {"bias": weight.new_zeros(module.bias.shape)})
            return torch.func.functional_call(module, given, (x,))
        if isinstance(module, _OWN_CHANNEL):
            return x if module.weight is None else x * _mask_along(module.weight, x, 1)
        if isinstance(module, nn.LayerNorm):
            return _normalised(x, len(module.normalized_shape), None if module.weight is None else module.weight != 0)
        if isinstance(module, nn.GroupNorm):
            groups = x.reshape(len(x), module.num_groups, -1)
            mixed = (groups + groups.mean(2, keepdim=True)).reshape(x.shape)
            return mixed if module.weight is None else mixed * _mask_along(module.weight, x, 1)
        if isinstance(module, _LINEAR_MODULES):
            return plain()
        if type(module) in pointwise.MODULES or isinstance(module, nn.PReLU):
            return self._activation(x, None if isinstance(module, nn.PReLU) else module)
        raise _no_rule(site)

    def _function(self, site: Site, tensors: list[Tensor], args: tuple[Any, ...], plain: Callable[[], Any]) -> Any:
        node = site.node
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", node.target))
        if name in _LINEAR:
            return plain()
        if name == "layer_norm":
            weight = tensors[1] if len(tensors) > 1 else None
            return _normalised(tensors[0], len(args[1]), weight)
        if len(tensors) == 3 and name == "scaled_dot_product_attention":
            query, key, value = tensors
            logits = query.mean((-2, -1), keepdim=True) + key.mean((-2, -1), keepdim=True)
            attention = self._activation(logits, torch.exp).expand(*query.shape[:-1], 1)
            return self._product(attention, value.mean(-2, keepdim=True))
        if len(tensors) == 2 and name in _SUMS:
            return tensors[0] + tensors[1]
        if len(tensors) == 2 and name in _PRODUCTS:
            return self._product(*tensors)
        if len(tensors) == 1 and name in _IDENTITIES:
            return tensors[0]
        if len(tensors) == 1 and (node.target in pointwise.FUNCTIONS or name in pointwise.METHODS):
            return self._activation(tensors[0], self._called_on_zero(node))
        raise _no_rule(site)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b if self._factors_matter else a * b

    def _called_on_zero(self, node: fx.Node) -> Callable[[Tensor], Any]:
        def call(zero: Tensor) -> Any:
            def fill(value: fx.Node) -> Any:
                given = self.env[value]
                return zero if isinstance(given, Tensor) and given.is_floating_point() else given

            args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), fill)
            target: Any = getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target
            return target(*args, **kwargs)

        return call

    @staticmethod
    def _activation(x: Tensor, function: Callable[[Tensor], Any] | None) -> Tensor:
        """Nothing is done to x, but what maps zero to another number has a value where x has none."""
        zero = torch.zeros_like(x.detach())
        if function is None or not bool(function(zero).any()):
            return x
        return x + (x == 0).to(x).detach()

    def _mask(self, name: str, layer: nn.Module) -> Tensor:
        if name not in self.weights:
            weight = layer.get_parameter("weight").detach().cpu()
            alive = weight != 0
            if weight.dim() > 2:
                alive = alive.flatten(2).any(2).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2)).expand_as(weight)
            self.weights[name] = (layer, alive.double().contiguous().requires_grad_())
        return self.weights[name][1]


def _note_gradient(needed: dict[fx.Node, Flags], node: fx.Node, form: Form, grad: Tensor) -> None:
    needed[node] = _by_channel(grad, form)


def _by_channel(x: Tensor, form: Form) -> Flags:
    """bool [C]: channels with any number that is not zero; empty where the tensor has no channel axis."""
    if not form.channels:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray((x.detach() != 0).movedim(form.axis, 0).reshape(form.channels, -1).any(1).numpy())


def _mask_along(weight: Tensor, x: Tensor, axis: int) -> Tensor:
    return (weight.detach().cpu() != 0).to(x).reshape([-1 if place == axis else 1 for place in range(x.dim())])


def _normalised(x: Tensor, axes: int, weight: Tensor | None) -> Tensor:
    """Layer normalisation: each number depends on all that are normalised with it."""
    mixed = x + x.mean(list(range(-axes, 0)), keepdim=True)
    return mixed if weight is None else mixed * weight.to(x)


def _no_rule(site: Site) -> NoRuleError:
    return NoRuleError(
        f"the gradient method has no rule for {site.name} ({site.kind})", hint='take the default, method="connectivity"'
    )
