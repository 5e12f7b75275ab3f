"""Methods that choose layer after layer by what the next layers get, and mend these. Start with `choose`.

In the order of the forward pass each layer is chosen on the network as it is by then: layers before it are pruned, and
their readers mended. What the dense network gave there is at hand too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import UserError
from edgeprune.pruning.criteria.context import Choice, Network
from edgeprune.pruning.criteria.reading import direct
from edgeprune.pruning.flow import Flows
from edgeprune.pruning.masks import Masks


@dataclass(frozen=True)
class Reading:
    """What one reader of a layer gets and gives at some places of its output, all float64.

    Args:
        reader: Its name.
        inputs: [samples, C, places]: what it reads of each channel, by place of its kernel or of a flattened map.
        weight: [C_out, C, places]: its weights as they are by now.
        bias: [C_out]: zeros where it has none.
        outputs: [samples, C_out]: what it gave in the dense network, without its bias.
        labels: [samples]: of the images the samples are from.
    """

    reader: str
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    outputs: torch.Tensor
    labels: torch.Tensor


Step = Callable[[list[Reading], int], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
"""From the readings of a layer and how many filters go: bool [C], True for those that go, and weights by reader."""


def choose(network: Network, counts: Mapping[str, int], positions: int, step: Step) -> Choice:
    """What `step` chooses and mends, for every layer that has direct readers.

    Args:
        network: With data.
        counts: How many filters of each layer go.
        positions: Places that are sampled of each image's output.
        step: The method.

    Raises:
        UserError: there is no data, or batch-norms are kept, which would shift the zeros of removed filters.
    """
    if network.batchnorm == "keep" and any(site.batchnorm for site in network.sites):
        raise UserError(
            f"method {network.method} takes a removed filter for a zero, and batchnorm: keep shifts it",
            hint="leave batchnorm at mask",
        )
    trimmed = copy.deepcopy(network.model)
    flows = Flows(trimmed, network.sites)
    batchnorms = {site.layer: site.batchnorm for site in network.sites}
    gone: dict[str, torch.Tensor] = {}
    replaced: dict[str, torch.Tensor] = {}
    for layer, readers in direct(network).items():
        channels = len(network.weight(layer))
        readings = [_read(network, flows, reader, channels, positions) for reader in readers]
        gone[layer], weights = step(readings, counts[layer])
        Masks({name: ~gone[layer] for name in (layer, batchnorms[layer]) if name}).hold(trimmed)
        for reader, weight in weights.items():
            parameter = trimmed.get_submodule(reader).get_parameter("weight")
            with torch.no_grad():
                parameter.copy_(weight.reshape(parameter.shape))
            replaced[f"{reader}.weight"] = parameter.detach()
    return Choice(gone, replaced)


def _read(network: Network, flows: Flows, reader: str, channels: int, positions: int) -> Reading:
    module = flows.module.get_submodule(reader)
    bias = module.bias if isinstance(module.bias, torch.Tensor) else torch.zeros(len(network.weight(reader)))
    node, dense = flows.calls(reader)[0], network.flows.calls(reader)[0]
    inputs, outputs, labels = [], [], []
    for images, classes in network.batches():
        with torch.no_grad():
            got = flows.run([node.all_input_nodes[0]], images)[0][node.all_input_nodes[0]]
            gave = network.flows.run([dense], images)[0][dense]
        of_image, patches, results = _at_places(module, got, gave, positions, network.random)
        inputs.append(patches.reshape(len(patches), channels, -1).double().cpu())
        outputs.append(results.double().cpu() - bias.detach().double().cpu())
        labels.append(classes.cpu()[of_image])
    weight = module.get_parameter("weight").detach().double().cpu()
    return Reading(
        reader,
        torch.cat(inputs),
        weight.reshape(len(weight), channels, -1),
        bias.detach().double().cpu(),
        torch.cat(outputs),
        torch.cat(labels),
    )


def _at_places(
    module: nn.Module, got: torch.Tensor, gave: torch.Tensor, positions: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, input and output of each sample; a linear layer has one for each of its vectors."""
    if not isinstance(module, nn.Conv2d):
        vectors, results = got.flatten(0, -2), gave.flatten(0, -2)
        return torch.arange(len(got)).repeat_interleave(len(vectors) // len(got)), vectors, results
    _, _, height, width = gave.shape
    image = torch.arange(len(got)).repeat_interleave(positions)
    place = torch.randint(height * width, (len(image),), generator=random)
    row, column = place // width, place % width
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(got, module._reversed_padding_repeated_twice, mode=mode)
    reach = [torch.arange(size) * step for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    rows = (row * module.stride[0])[:, None] + reach[0]
    columns = (column * module.stride[1])[:, None] + reach[1]
    # indices on both sides of the channel slice put the channels last
    patches = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return image, patches, gave[image, :, row, column]
