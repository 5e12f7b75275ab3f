"""Inputs on which a shrunk network is compared with the masked one: random numbers, in images as small as will do.

Start with `probe`. A fault of the analysis shows in any image, and one at a zero border shows better in a small image,
most of whose pixels feel the border; a large one only costs time.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from edgeprune.shrinking.graph import Network
from edgeprune.shrinking.shapes import Shapes, meta_shapes

SIZES = (64, 128)
"""Longest side to try, in this order, where the example's images are longer.

At 64 pixels a network that divides its input by 32 still has 2x2 pixels in its last stage; some, such as Inception-v3,
take no less than 75.
"""

SMALL_SIZE = 16
"""Longest side to try first where the example's is at most 32: the last stage of a ResNet-56 then has 4x4 pixels."""

SAMPLES = 2
"""Size of the batch where the network takes it; two tell whether samples mix, and whether a size of one was built in.
"""


def probe(network: Network, example_inputs: tuple[Any, ...], seed: int = 0) -> tuple[Any, ...]:
    """Inputs like the example's: floats from a standard normal distribution, everything else from the example.

    Images [N, C, H, W] and volumes [N, C, D, H, W] are made smaller if the network takes them so and no tensor's
    channels depend on it, which its shapes on the meta device tell; else they keep the example's size.
    """
    held = network.root.sizes
    for shapes in _smaller(example_inputs) if held is None or held.holds_for_all else ():
        smaller = _drawn(example_inputs, shapes, seed)
        found = meta_shapes(network.root, smaller)
        if found is None or not all(_alike(network, node, shape) for node, shape in found.items()):
            continue
        if _batch(smaller) == _batch(example_inputs) or _answers_each(network, found):
            return smaller
    return _drawn(example_inputs, [list(tensor.shape) for tensor in _tensors(example_inputs)], seed)


def _alike(network: Network, node: Any, shape: torch.Size | None) -> bool:
    """Whether a tensor has the channels of the example's, and is no single pixel where the example's is an image."""
    form = network.by_node[node].form
    if form is None or shape is None:
        return form is None and shape is None
    if form.rank > 2 and max(shape[2:], default=1) == 1 < max(form.shape[2:]):
        return False
    return len(shape) == form.rank and (form.axis >= form.rank or shape[form.axis] == form.channels)


def _answers_each(network: Network, found: Shapes) -> bool:
    """Whether each output has a row for each sample."""
    outputs = [node for site in network.sites if site.node.op == "output" for node in site.node.all_input_nodes]
    return all(shape is not None and shape[:1] == (SAMPLES,) for shape in map(found.get, outputs))


def _batch(inputs: tuple[Any, ...]) -> int | None:
    """The number of samples, None where the inputs have not the same."""
    samples = {tensor.shape[0] if tensor.dim() else 0 for tensor in _tensors(inputs)}
    return samples.pop() if len(samples) == 1 else None


def _tensors(inputs: tuple[Any, ...]) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _smaller(inputs: tuple[Any, ...]) -> Iterator[list[list[int]]]:
    """Shapes to try for the tensors of the inputs, smallest first."""
    tensors = _tensors(inputs)
    own = _batch(inputs)
    longest = max((max(tensor.shape[2:]) for tensor in tensors if _is_image(tensor)), default=0)
    sizes = (SMALL_SIZE,) if longest <= 2 * SMALL_SIZE else SIZES
    for size in [*[size for size in sizes if size < longest], longest]:
        for batch in (own,) if own in (None, 0, SAMPLES) else (SAMPLES,) if own != 1 else (SAMPLES, own):
            shapes = []
            for tensor in tensors:
                shape = list(tensor.shape)
                if _is_image(tensor):
                    shape[2:] = [_scaled(side, Fraction(size, longest)) for side in shape[2:]]
                shapes.append([batch, *shape[1:]] if batch else shape)
            yield shapes


def _is_image(tensor: Tensor) -> bool:
    return tensor.dim() in (4, 5) and tensor.is_floating_point() and tensor.numel() > 0


def _scaled(side: int, factor: Fraction) -> int:
    """In proportion, so that images of several sizes still fit together; else a multiple of what networks divide by."""
    exact = side * factor
    return int(exact) if exact.denominator == 1 else max(32, round(exact / 32) * 32)


def _drawn(inputs: tuple[Any, ...], shapes: list[list[int]], seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    wanted = iter(shapes)

    def draw(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        shape = next(wanted)
        if not value.is_floating_point():
            return value[torch.arange(shape[0], device=value.device) % len(value)] if shape and len(value) else value
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(value)

    return tuple(_pytree.tree_map(draw, inputs))
