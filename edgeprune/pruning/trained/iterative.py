"""Prune a little, retrain, prune more (Han et al. 2015), with any criterion. Start with `prune`."""

from __future__ import annotations

import copy

from edgeprune.errors import UserError
from edgeprune.pruning.masks import Masks
from edgeprune.pruning.select import prune as prune_once
from edgeprune.pruning.trained.job import Job


def prune(job: Job, *, criterion: str, rounds: int, rewind: int) -> Masks:
    """Masks of the last round, with the weights retrained under them.

    Round k of n removes k/n of the ratio, chosen anew on the weights as they are then; filters that are zero already
    score by their zeros. The schedule is that of one round.

    Args:
        job: The network.
        criterion: Any one-shot criterion.
        rounds: How many.
        rewind: Before each retraining the weights go back to those after this epoch of a first training (Frankle et
            al. 2020, Linear mode connectivity, section 4); 0 is those the network came with (Frankle and Carbin 2019),
            -1 goes on with those it has (Han et al. 2015).

    Raises:
        UserError: No rounds, or rewinding to an epoch that the schedule does not have.
    """
    if rounds < 1 or not -1 <= rewind < job.schedule.epochs:
        raise UserError(
            f"method iterative: rounds is {rounds}, rewind {rewind}",
            hint=f"rounds is at least 1, rewind an epoch below {job.schedule.epochs}, or -1 for none",
        )
    early = None
    if rewind >= 0:
        if rewind > 0:
            job.train("early", epochs=rewind)
        early = copy.deepcopy(job.model.state_dict())
        job.train("first", epochs=job.schedule.epochs - rewind)
    for number in range(1, rounds + 1):
        masks = prune_once(
            job.model,
            job.inputs,
            criterion,
            job.ratio * number / rounds,
            data=job.dataset,
            seed=job.seed,
            scope=job.scope,
            batchnorm=job.batchnorm,
        )
        job.model.load_state_dict(early or masks.apply(job.model).state_dict())
        job.train(f"round{number}", masks=masks)
    return Masks(masks.kept, masks.batchnorms, {"criterion": criterion}, job.model.state_dict())
