"""From a network to its masks by a criterion. Start with `prune`, the stage's one entry."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from edgeprune import pruning
from edgeprune.datasets import Dataset
from edgeprune.errors import ModelError, UnknownNameError, UserError, WeightsError
from edgeprune.pruning.calibration import batches_of
from edgeprune.pruning.choosing import BatchNormRule, Ratio, Scope, choose, counts, masks_of
from edgeprune.pruning.criteria import criterion, entry
from edgeprune.pruning.criteria.context import Batches, Choice, Network
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.scoring import scores_of
from edgeprune.pruning.sites import Site, find_sites
from edgeprune.pruning.trained import ENTRIES as TRAINED
from edgeprune.pruning.trained import Option
from edgeprune.pruning.weights import mask_weights

if TYPE_CHECKING:
    from edgeprune.training import TrainingStep

Inputs = torch.Tensor | tuple[torch.Tensor, ...]


def prune(
    model: nn.Module,
    example_inputs: Inputs,
    method: str = "l1",
    ratio: Ratio = 0.5,
    data: Dataset | Batches | None = None,
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
            factor. "package.module:function" is your own criterion: called with a layer and a `ScoreContext` it
            returns a float for each filter, higher for those that matter more. Naming it runs your code. So does the
            name of an entry point that an installed package has in the group "edgeprune.criteria".
        ratio: Fraction of the candidates' filters to remove, in [0, 1). Rounded to whole filters, halves up; at least
            one filter of each layer stays. A mapping gives single layers theirs by name; the others stay whole.
        data: A dataset, or batches (images, labels): criteria that look at data take some hundred training images of
            a dataset, or all of the batches; a method that trains holds every tenth image of batches out for
            validation.
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
        UserError: The ratio is outside [0, 1) or empties a layer, an option has another type, or there is no data for a
            method that looks at data.
        StageError: A training came to NaN.
        UnknownNameError: No such method, option, layer, scope or batch-norm rule.
        TraceError: torch.fx cannot follow the model.
        ModelError: There is nothing to prune, or a layer is of a kind that the method doesn't know.
        WeightsError: A layer holds NaN or infinity.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
    >>> prune(net, torch.zeros(1, 1, 4, 4), ratio=0.5).pruned_filters
    2
    """
    pruning.entry(method)
    scope = pruning.default_scope(method) if scope is None else scope
    _require_known("scope", scope, get_args(Scope))
    _require_known("batchnorm rule", batchnorm, get_args(BatchNormRule))
    _check_range(ratio)
    inputs = _as_tuple(example_inputs)
    pruning.check_options(method, options)
    if method in TRAINED:
        # methods that train call this function themselves, for their criteria
        from edgeprune.pruning.trained.run import run

        one = _one_ratio(method, ratio)
        return run(TRAINED[method], model, inputs, one, data, seed, scope, batchnorm, options, keep, progress)
    told = dict(ratio) if isinstance(ratio, Mapping) else ratio
    facts: dict[str, Any] = {"method": method, "ratio": told, "seed": seed, "scope": scope, "batchnorm": batchnorm}
    if options:
        facts["options"] = dict(options)
    if entry(method).function is None:
        single, factor = mask_weights(model, _one_ratio(method, ratio), layer_wise=scope == "local")
        return Masks(single, facts=facts | {"factor": factor})
    sites = find_sites(model)
    named = _named(model, sites, ratio)
    # a copy: criteria run it as it is used, whatever mode it is in
    network = Network(
        method,
        copy.deepcopy(model).eval(),
        named,
        inputs,
        batches_of(data),
        torch.Generator().manual_seed(seed),
        batchnorm,
    )
    choice = _choose(network, ratio, scope, options)
    if left_out := [site.layer for site in named if site.layer not in choice.gone]:
        _check_left_out(network, left_out, ratio)
        facts["left_out"] = left_out
    whole = {site.layer: torch.zeros(_filters(model, site), dtype=torch.bool) for site in sites}
    kept, batchnorms = masks_of(sites, whole | dict(choice.gone), batchnorm)
    return Masks(kept, batchnorms, facts, choice.replaced)


def _choose(network: Network, ratio: Ratio, scope: Scope, options: Mapping[str, Any]) -> Choice:
    """Which filters go, by scores or by the method's own way."""
    if entry(network.method).takes != "counts":
        return Choice(choose(scores_of(network, options), ratio, scope))
    if scope != "local":
        raise UserError(f"method {network.method} compares filters of one layer", hint="take scope local")
    wanted = counts({site.layer: _filters(network.model, site) for site in network.sites}, ratio)
    choice: Choice = criterion(network.method)(network, wanted, **options)
    return choice


def _one_ratio(method: str, ratio: Ratio) -> float:
    if isinstance(ratio, Mapping):
        raise UserError(f"method {method} has one ratio, of the whole network", hint="give one number such as 0.5")
    return ratio


def _filters(model: nn.Module, site: Site) -> int:
    return model.get_submodule(site.layer).get_parameter("weight").shape[0]


def _check_range(ratio: Ratio) -> None:
    for layer, one in ratio.items() if isinstance(ratio, Mapping) else [("", ratio)]:
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0.0 <= one < 1.0:
            raise UserError(
                f"pruning ratio is {one!r}" + (f" for layer {layer}" if layer else ""),
                hint="a fraction of the filters in [0, 1), such as 0.5",
            )


def _named(model: nn.Module, sites: Sequence[Site], ratio: Ratio) -> list[Site]:
    """The layers that are asked for, none of which may hold NaN."""
    names = [site.layer for site in sites]
    wanted = list(ratio) if isinstance(ratio, Mapping) else names
    for layer in wanted:
        _require_known("layer to prune", layer, names)
        if not bool(torch.isfinite(model.get_submodule(layer).get_parameter("weight")).all()):
            raise WeightsError(f"layer {layer} holds NaN or infinity", hint="the training diverged: train again")
    return [site for site in sites if site.layer in wanted]


def _check_left_out(network: Network, left_out: Sequence[str], ratio: Ratio) -> None:
    """Layers that a method cannot judge stay whole, unless they were asked for by name or there are no others."""
    if not isinstance(ratio, Mapping) and len(left_out) < len(network.sites):
        return
    layer = left_out[0]
    raise ModelError(
        f"method {network.method} goes by the layers that read layer {layer}: {network.flows.of[layer].obstacle}",
        hint=f"leave {layer} out of the ratios, or take a method that looks at the layer itself, such as l1 or hrank",
    )


def _require_known(what: str, wrong: str, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if wrong not in names:
        raise UnknownNameError(what, wrong, names)


def _as_tuple(example_inputs: Inputs) -> tuple[torch.Tensor, ...]:
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not inputs or not all(isinstance(one, torch.Tensor) for one in inputs):
        raise UserError("example_inputs holds something else than tensors", hint="give a tensor or a tuple of tensors")
    return inputs
