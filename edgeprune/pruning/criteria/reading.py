"""How the next layers read a layer's channels, for criteria that judge a channel by that. Start with `direct`."""

from __future__ import annotations

import torch

from edgeprune.pruning.criteria.context import Network


def direct(network: Network) -> dict[str, tuple[str, ...]]:
    """The layers that have direct readers, and these; the rest, such as layers on a residual stream, are left out."""
    return {layer: flow.readers for layer, flow in network.flows.of.items() if not flow.obstacle}


def channels_as_read(network: Network, layer: str, reader: str) -> torch.Tensor:
    """The weights by which a reader reads each channel of a layer: float64 [C_out of the reader, C, places].

    Places are those of a convolution's kernel, or of a flattened map where the reader is linear.
    """
    channels = network.model.get_submodule(layer).get_parameter("weight").shape[0]
    weight = network.weight(reader)
    return weight.reshape(len(weight), channels, -1)
