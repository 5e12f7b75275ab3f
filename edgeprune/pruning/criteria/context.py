"""What a criterion may look at besides the layer itself: `ScoreContext` of one layer, `Network` of all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from edgeprune.errors import UserError
from edgeprune.pruning.flow import Flows
from edgeprune.pruning.sites import Site

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class ScoreContext:
    """The network around a layer.

    Args:
        name: The layer's name in the model.
        model: The whole model, a copy in evaluation mode.
        inputs: One input of the model, or several in order.
        data: Batches (images float32 [N, C, H, W], labels int64 [N]) for criteria that look at data, or None.
        random: One stream for all layers, in the order of the forward pass.
        batchnorm: The batch-norm that is the layer's only reader, if there is one.
    """

    name: str
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    data: Batches | None
    random: torch.Generator
    batchnorm: str | None = None


@dataclass(frozen=True)
class Network:
    """All layers of a network that may be pruned, for criteria that see more than one at a time.

    Args:
        method: The criterion's name, for messages.
        model: A copy in evaluation mode.
        sites: The layers that may be pruned, in the order of the forward pass.
        inputs: One input of the model, or several in order.
        data: Batches (images float32 [N, C, H, W], labels int64 [N]) or None.
        random: For criteria that draw samples.
        batchnorm: Whether a removed filter's batch-norm goes too ("mask") or still shifts its zeros ("keep").
    """

    method: str
    model: nn.Module
    sites: Sequence[Site]
    inputs: tuple[torch.Tensor, ...]
    data: Batches | None
    random: torch.Generator
    batchnorm: Literal["mask", "keep"] = "mask"

    @cached_property
    def flows(self) -> Flows:
        """Where the channels go."""
        return Flows(self.model, self.sites)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The data from its beginning.

        Raises:
            UserError: there is none.
        """
        batch = None
        device = next(self.model.parameters()).device
        for batch in self.data if self.data is not None else ():
            yield batch[0].to(device), batch[1].to(device)
        if batch is None:
            raise UserError(
                f"method {self.method} looks at data, and "
                + ("none was given" if self.data is None else "it is empty"),
                hint="give prune() some batches: data=[(images, labels), ...]; in a matrix they come from its dataset",
            )

    def weight(self, layer: str) -> torch.Tensor:
        """float64 weight of a layer, in the computer's own memory."""
        return self.model.get_submodule(layer).get_parameter("weight").detach().double().cpu()


@dataclass(frozen=True)
class Choice:
    """What a method that chooses by itself came to.

    Args:
        gone: For each layer bool [C_out], True for filters that go; layers that it cannot judge are left out.
        replaced: New values of parameters by their name in the state dict.
    """

    gone: Mapping[str, torch.Tensor]
    replaced: Mapping[str, torch.Tensor] = field(default_factory=dict)
