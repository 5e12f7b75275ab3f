"""Asks a criterion for its scores, and checks what it answers. Start with `scores_of`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from edgeprune.errors import EdgepruneError, ModelError, UserError
from edgeprune.pruning.criteria import criterion, entry, is_users_own
from edgeprune.pruning.criteria.context import Network, ScoreContext
from edgeprune.pruning.sites import Site
from edgeprune.user_code import describe


def scores_of(network: Network, options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """float64 [C_out] of each layer that the criterion can judge.

    Raises:
        UserError: the criterion needs data and there is none; or it is the user's own, and raised.
        ModelError: a layer is of a kind that the criterion does not know, or what it answers are no scores.
    """
    score = criterion(network.method)
    if entry(network.method).takes == "network":
        found: Mapping[str, torch.Tensor] = score(network, **options)
    else:
        found = {site.layer: _of_layer(score, network, site, options) for site in network.sites}
    return {layer: _checked(network, layer, values) for layer, values in found.items()}


def _of_layer(score: Callable[..., Any], network: Network, site: Site, options: Mapping[str, Any]) -> Any:
    layer = network.model.get_submodule(site.layer)
    context = ScoreContext(
        site.layer, network.model, network.inputs, network.data, network.random, batchnorm=site.batchnorm
    )
    try:
        return score(layer, context, **options)
    except EdgepruneError:
        raise
    except Exception as error:
        if not is_users_own(network.method):
            raise
        raise UserError(
            f"criterion {network.method} raised {describe(error)} for layer {site.layer}",
            hint="it is called as criterion(layer, context), and returns one float for each filter",
        ) from error


def _checked(network: Network, layer: str, values: Any) -> torch.Tensor:
    filters = network.model.get_submodule(layer).get_parameter("weight").shape[0]
    shape = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
    if shape != [filters] or not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"method {network.method} gave layer {layer} scores of shape {shape}, or not all finite",
            hint=f"a criterion returns {filters} finite numbers here, one for each filter",
        )
    result: torch.Tensor = values.detach().double().cpu()
    return result
