"""From a network to its masks by a criterion. Start with `prune`, the stage's one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from edgeprune import pruning
from edgeprune.datasets import Dataset
from edgeprune.errors import ModelError, UnknownNameError, UserError, WeightsError
from edgeprune.pruning.choosing import BatchNormRule, Scope, choose, masks_of
from edgeprune.pruning.criteria import criterion, entry
from edgeprune.pruning.criteria.context import ScoreContext
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.sites import Site, find_sites
from edgeprune.pruning.trained import ENTRIES as TRAINED
from edgeprune.pruning.trained import Option
from edgeprune.pruning.weights import mask_weights

if TYPE_CHECKING:
    from edgeprune.training import TrainingStep

CALIBRATION_BATCH = 64
Inputs = torch.Tensor | tuple[torch.Tensor, ...]


def prune(
    model: nn.Module,
    example_inputs: Inputs,
    method: str = "l1",
    ratio: float = 0.5,
    data: Dataset | Iterable[tuple[torch.Tensor, torch.Tensor]] | None = None,
    seed: int = 0,
    *,
    scope: Scope | None = None,
    batchnorm: BatchNormRule = "mask",
    keep: Path | None = None,
    progress: Callable[[TrainingStep], None] | None = None,
    **options: Option,
) -> Masks:
    """Choose the filters that matter least; the model itself is not changed.

    Candidates are Conv2d layers and hidden Linear layers. Layers whose channels reach the output as they are, such as
    the classifier, and depthwise convolutions are not pruned. Of equal scores the filter that comes first goes first.

    Args:
        model: Any module that torch.fx can follow.
        example_inputs: One input, or a tuple of them, for criteria that run the model.
        method: One of `edgeprune.pruning.methods()`: a criterion, or a method that trains a copy of the model; the
            masks then bring the trained values along, and `Masks.apply` puts them in. "magnitude" is unstructured:
            single weights of every convolution and linear layer go, `ratio` is a share of weights, and `scope` says
            whose standard deviation makes the threshold, the layer's or the network's; the masks' facts tell the
            factor.
        ratio: Fraction of the candidates' filters to remove, in [0, 1). Rounded to whole filters, halves up; at least
            one filter of each layer stays.
        data: Batches (images, labels) for criteria that look at data. A method that trains takes a dataset, or
            batches of which it holds every tenth image out for validation.
        seed: Of methods that draw random numbers, and of the order of images.
        scope: "local" removes the ratio in every layer; "global" over all layers together, by one threshold over
            scores divided by their layer's mean score, as Torch-Pruning does. (The root of the sum of squares of
            Molchanov et al. 2017, section 2.2, would empty the widest layers first: it grows with their width.)
            Left out, it is what the method's paper does; for criteria "local".
        batchnorm: "mask" also zeroes scale and shift of a batch-norm that reads nothing but the pruned layer, as PFEC
            does (Li et al. 2017, section 3); "keep" leaves them, and the channel's shift remains.
        keep: A folder where a method that trains leaves its state after every epoch, and goes on from.
        progress: Told how far a training is.
        **options: The method's own, such as `penalty=1e-4`, and its training's, such as `epochs=20`.

    Raises:
        UserError: The ratio is outside [0, 1), an option has another type, or there is no data to train on.
        StageError: A training came to NaN.
        UnknownNameError: No such method, scope or batch-norm rule.
        TraceError: torch.fx cannot follow the model.
        ModelError: There is nothing to prune.
        WeightsError: A layer holds NaN or infinity.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
    >>> prune(net, torch.zeros(1, 1, 4, 4), ratio=0.5).pruned_filters
    2
    """
    _require_known("pruning method", method, pruning.methods())
    scope = pruning.default_scope(method) if scope is None else scope
    _require_known("scope", scope, get_args(Scope))
    _require_known("batchnorm rule", batchnorm, get_args(BatchNormRule))
    if not 0.0 <= ratio < 1.0:
        raise UserError(f"pruning ratio is {ratio}", hint="a fraction of the filters in [0, 1), such as 0.5")
    inputs = _as_tuple(example_inputs)
    pruning.check_options(method, options)
    if method in TRAINED:
        # methods that train call this function themselves, for their criteria
        from edgeprune.pruning.trained.run import run

        return run(TRAINED[method], model, inputs, ratio, data, seed, scope, batchnorm, options, keep, progress)
    facts: dict[str, Any] = {"method": method, "ratio": ratio, "seed": seed, "scope": scope, "batchnorm": batchnorm}
    if entry(method).function is None:
        single, factor = mask_weights(model, ratio, layer_wise=scope == "local")
        return Masks(single, facts=facts | {"factor": factor})
    sites = find_sites(model)
    scores = _score(model, sites, method, inputs, _batches(data), seed)
    kept, batchnorms = masks_of(sites, choose(scores, ratio, scope), batchnorm)
    return Masks(kept, batchnorms, facts)


def _require_known(what: str, wrong: str, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if wrong not in names:
        raise UnknownNameError(what, wrong, names)


def _as_tuple(example_inputs: Inputs) -> tuple[torch.Tensor, ...]:
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not inputs or not all(isinstance(one, torch.Tensor) for one in inputs):
        raise UserError("example_inputs holds something else than tensors", hint="give a tensor or a tuple of tensors")
    return inputs


def _batches(
    data: Dataset | Iterable[tuple[torch.Tensor, torch.Tensor]] | None,
) -> Iterable[tuple[torch.Tensor, torch.Tensor]] | None:
    return DataLoader(data.train, CALIBRATION_BATCH) if isinstance(data, Dataset) else data


def _score(
    model: nn.Module,
    sites: list[Site],
    method: str,
    inputs: tuple[torch.Tensor, ...],
    data: Iterable[tuple[torch.Tensor, torch.Tensor]] | None,
    seed: int,
) -> dict[str, torch.Tensor]:
    score = criterion(method)
    random = torch.Generator().manual_seed(seed)
    scores: dict[str, torch.Tensor] = {}
    for site in sites:
        layer = model.get_submodule(site.layer)
        if not bool(torch.isfinite(layer.get_parameter("weight")).all()):
            raise WeightsError(f"layer {site.layer} holds NaN or infinity", hint="the training diverged: train again")
        values = score(layer, ScoreContext(site.layer, model, inputs, data, random)).detach().double().cpu()
        filters = layer.get_parameter("weight").shape[0]
        if values.shape != (filters,) or not bool(torch.isfinite(values).all()):
            raise ModelError(
                f"method {method} gave layer {site.layer} scores of shape {list(values.shape)}, or not all finite",
                hint=f"a criterion returns {filters} finite numbers here, one for each filter",
            )
        scores[site.layer] = values
    return scores
