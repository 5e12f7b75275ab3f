"""Pruning by models that are trained for it: each convolution's input goes through a learned mask. Start with `prune`.

learned_pruning_models_thesis, chapter 4: a small pruning-model looks at a convolution's input and predicts a mask of
its channels; convolutions that read one residual stream share theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeprune.errors import ModelError, UserError
from edgeprune.pruning.choosing import choose, masks_of
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import find_sites
from edgeprune.pruning.trained.job import Job
from edgeprune.pruning.trained.streams import ReaderGroup, reader_groups
from edgeprune.training import Hooks

OFFSET = 1.15  # section 4.2.3
SHARED = 0.7  # of the mean, which is taken from a shared mask, section 4.5
SIDE = 16  # pixels that a pruning-model sees, section 4.2.2
_GAIN = 0.05  # of the interaction with the ratio, as a share of all iterations


class PruningModel(nn.Module):
    """Section 4.2.2: float32 [N, C, H, W] -> float32 [N, C], whatever H and W; `mask` [C] is the last one made."""

    mask: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.depthwise = nn.Conv2d(channels, wide, 3, padding=1, groups=channels)
        self.blocks = nn.Sequential(
            *(
                layer
                for _ in range(4)
                for layer in (
                    nn.Conv2d(wide, wide, 3, padding=1, groups=channels),
                    nn.BatchNorm2d(wide),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
        )
        self.linear = nn.Linear(wide, channels)
        self.register_buffer("mask", torch.ones(channels))
        # convolutions of many small groups run twice as fast with channels last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What it says of each channel of each image."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        result: torch.Tensor = self.linear(self.blocks(self.depthwise(x)).flatten(1))
        return result


def continuous_mask(previous: torch.Tensor, predicted: torch.Tensor, progress: float) -> torch.Tensor:
    """Equation 4.3: relu(cm / 2 + (BM(y) - M(y)) / (2 sqrt(V(y))) + offset - (iter + interacting) / max_iter).

    Args:
        previous: cm of the iteration before, [C].
        predicted: y of the pruning-model, [N, C].
        progress: (iter + interacting) / max_iter.
    """
    # what all channels share alike has no variance; the thesis divides by it as it is
    deviation = predicted.var(correction=0).sqrt().clamp(min=1e-6)
    standardised = (predicted.mean(0) - predicted.mean()) / deviation
    return torch.relu(previous / 2 + standardised / 2 + OFFSET - progress)


def shared_mask(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Section 4.5: the mean of the masks less 70 % of the mean over all of them; one alone is left as it is."""
    if len(masks) == 1:
        return masks[0]
    together = torch.stack(list(masks))
    return torch.relu(together.mean(0) - SHARED * together.mean())


@dataclass
class LearnedMasks(Hooks):
    """Counts the iterations, and interacts with them so that the share of zero channels comes to the ratio.

    Section 4.4: a scalar that is added to the iteration prunes more or less. A user moves it there; here it follows
    the distance between the share that is wanted by now and the share that is reached.
    """

    groups: tuple[ReaderGroup, ...]
    ratio: float
    iterations: int
    done: int = 0
    interacting: float = 0.0
    masks: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def attach(self, model: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Let each reader of the groups see its input through its mask."""
        return [
            model.get_submodule(name).register_forward_pre_hook(self._looking(model, name, group))
            for group in self.groups
            for name in group.readers
        ]

    def _looking(self, model: nn.Module, name: str, group: ReaderGroup) -> Any:
        def look(layer: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
            own = pruning_model(model, name)
            if layer.training:
                progress = (self.done + self.interacting) / self.iterations
                self.masks[name] = continuous_mask(own.mask, own(inputs[0]), progress)
            # readers that did not run yet in this pass speak by their last mask
            masks = [self.masks.get(one, pruning_model(model, one).mask) for one in group.readers]
            return inputs[0] * shared_mask(masks).view(1, -1, 1, 1)

        return look

    @torch.no_grad()
    def after_step(self, model: nn.Module, rate: float) -> None:
        """Keep the masks as the next step's previous ones, and interact."""
        for name, mask in self.masks.items():
            pruning_model(model, name).mask.copy_(mask)
        self.masks.clear()
        self.done += 1
        masks = [group_mask(model, group) for group in self.groups]
        share = sum(int((one == 0).sum()) for one in masks) / sum(map(len, masks))
        wanted = self.ratio * min(1.0, self.done / self.iterations)
        self.interacting += _GAIN * self.iterations * (wanted - share)

    def state(self) -> dict[str, Any]:
        """How far it is; the masks are in the model's state."""
        return {"done": self.done, "interacting": self.interacting}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.done, self.interacting = state["done"], state["interacting"]


def pruning_model(model: nn.Module, layer: str) -> PruningModel:
    """The pruning-model of a convolution."""
    found = model.get_submodule(f"{layer}.pruning_model")
    if not isinstance(found, PruningModel):
        raise ModelError(f"layer {layer} has no pruning-model")
    return found


def group_mask(model: nn.Module, group: ReaderGroup) -> torch.Tensor:
    """The mask that the readers of a group share, [C]."""
    return shared_mask([pruning_model(model, name).mask for name in group.readers])


def zero_channels(mask: torch.Tensor) -> torch.Tensor:
    """Which channels of a mask [C] are zero, bool [C]; of one that is zero everywhere the last channel stays.

    A set without channels would cut the network in two, and nothing could be trained on behind it.

    >>> zero_channels(torch.tensor([0.0, 0.3, 0.0])), zero_channels(torch.zeros(2))
    (tensor([ True, False,  True]), tensor([ True, False]))
    """
    gone = mask == 0
    if gone.all():
        gone[-1] = False
    return gone


def prune(job: Job, *, retrain_epochs: int, fill: bool) -> Masks:
    """Train network and pruning-models together, fold the last masks in, train on without them.

    Args:
        job: The network; `ratio` is the share of input channels of its convolutions but the first.
        retrain_epochs: Of the fine-tuning phase (section 4.3.2), which takes nine tenths of the thesis's iterations.
        fill: Whether the channels of smallest masks go until the ratio is reached; if not, those that are zero. At
            least one of each set stays, as with every method.

    Raises:
        ModelError: No convolution reads another layer's channels.
        UserError: No epochs of fine-tuning.
    """
    if retrain_epochs < 1:
        raise UserError(f"method learned: retrain_epochs is {retrain_epochs}", hint="it is at least 1")
    groups = tuple(reader_groups(job.model))
    if not groups:
        raise ModelError(
            f"{type(job.model).__name__} has no convolution that reads another layer",
            hint="method learned masks inputs of convolutions; use a criterion such as l1 here",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        for group in groups:
            for name in group.readers:
                layer = job.model.get_submodule(name)
                layer.add_module("pruning_model", PruningModel(group.channels).to(layer.get_parameter("weight")))
    steps = -(-len(job.dataset.train) // job.schedule.batch_size)  # type: ignore[arg-type]
    hooks = LearnedMasks(groups, job.ratio, job.schedule.epochs * steps)
    handles = hooks.attach(job.model)
    job.train("pruning", hooks=hooks)
    for handle in handles:
        handle.remove()
    masks = _folded(job, hooks, fill)
    job.model.load_state_dict(masks.apply(job.model).state_dict())
    job.train("retrain", masks=masks, epochs=retrain_epochs)
    return Masks(masks.kept, masks.batchnorms, masks.facts, job.model.state_dict())


def _folded(job: Job, hooks: LearnedMasks, fill: bool) -> Masks:
    """Masks of the readers' input channels; and of the filters that made them, where nobody else reads those."""
    found = {group.readers: group_mask(job.model, group).cpu() for group in hooks.groups}
    zero = sum(int((one == 0).sum()) for one in found.values())
    scores = {str(place): mask for place, mask in enumerate(found.values())}
    chosen = (
        choose(scores, job.ratio, "global", normalise=False)
        if fill
        else {name: zero_channels(mask) for name, mask in scores.items()}
    )
    gone = list(chosen.values())
    kept: dict[str, torch.Tensor] = {}
    filters: dict[str, torch.Tensor] = {}
    for group, channels in zip(hooks.groups, gone, strict=True):
        for name in group.readers:
            layer = job.model.get_submodule(name)
            del layer.pruning_model
            weight = layer.get_parameter("weight")
            with torch.no_grad():
                weight.mul_(found[group.readers].to(weight).view(1, -1, 1, 1))
            kept[name] = (~channels).view(1, -1, 1, 1).expand_as(weight).cpu()
        if group.complete:
            filters |= dict.fromkeys(group.producers, channels)
    made, batchnorms = masks_of([one for one in find_sites(job.model) if one.layer in filters], filters, job.batchnorm)
    for name, mask in made.items():
        kept[name] = kept[name] & mask.view(-1, 1, 1, 1) if name in kept else mask
    facts = {"channels": sum(map(len, found.values())), "zero_channels": zero, "interacting": hooks.interacting}
    return Masks(kept, batchnorms, facts)
