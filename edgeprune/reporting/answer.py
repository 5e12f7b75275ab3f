"""The answer of a run in one sentence: what pruning promises by MACs, and what each runtime delivers of it.

`answer` takes the pruning ratio with most finished pairs, the nearest to one half among equals, and over its networks
the geometric mean, as ratios are averaged. It says "slower" and "no measurable change" where that is what the intervals
say. Where nothing is timed, and cycles of a simulated accelerator are counted, it tells these. Of several methods it
tells how many keep the accuracy, and what the fastest of these gains.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from edgeprune.measuring import realised, theoretical_speedup_filters
from edgeprune.reporting import wording
from edgeprune.reporting.counts import CountGain, gains, target_labels
from edgeprune.reporting.methods import CLOSE, MethodRow, method_rows
from edgeprune.reporting.results import PairResult, Results

_NAMED_RUNTIMES = 4


def answer(results: Results) -> str:
    """One sentence that answers the run's question, or that says why there is no answer yet."""
    measured = [pair for pair in results.pairs if pair.ratio is not None and pair.theoretical_macs is not None]
    if not measured:
        return _no_answer(results)
    if (rows := method_rows(results)) and (told := _of_methods(results, rows)):
        return told
    ratios = sorted({pair.pruning_ratio for pair in measured}, key=lambda ratio: (abs(ratio - 0.5), ratio))
    by_ratio = {ratio: _on_every_setting([one for one in measured if one.pruning_ratio == ratio]) for ratio in ratios}
    # a ratio whose cells failed in part answers less than a whole one further from one half
    at = max(ratios, key=lambda ratio: len(by_ratio[ratio]))
    pairs = by_ratio[at]
    labels = wording.setting_labels(cell.key for cell in results.timed)
    by_label: dict[str, list[PairResult]] = {}
    for pair in pairs:
        by_label.setdefault(labels[wording.setting(pair.key)], []).append(pair)
    promised = _mean([pair.theoretical_macs or 1.0 for pair in pairs])
    return (
        f"{_asked(at, pairs)} promises {wording.times(promised)} by MACs"
        f"{_over(pairs)}; {_place(pairs)}{_join(_deliveries(by_label))}."
    )


def _asked(ratio: float, pairs: Sequence[PairResult]) -> str:
    """What was pruned; a ratio of weights or columns is none of filters."""
    filters = theoretical_speedup_filters(ratio)
    if all(math.isclose(pair.theoretical_filters, filters) for pair in pairs):
        return f"Removing {wording.percent(ratio)} of the filters"
    return f"Pruning at a ratio of {wording.percent(ratio)}"


def _of_methods(results: Results, rows: Sequence[MethodRow]) -> str:
    """How many recipes of the commonest ratio keep the accuracy, and the fastest of them; "" where none is timed."""
    number = Counter(row.key.pruning_ratio for row in rows if row.key.pruning_ratio)
    if not number:
        return ""
    at = max(sorted(number, key=lambda ratio: (abs(ratio - 0.5), ratio)), key=lambda ratio: number[ratio])
    mine = [row for row in rows if row.key.pruning_ratio == at]
    kept = [row for row in mine if row.keeps]
    words = f"At a ratio of {wording.percent(at)}, {len(kept)} of {len(mine)} pruned networks stay within "
    words += f"{100 * CLOSE:g} points of dense accuracy"
    timed = [row for row in kept if any(pair.ratio for pair in row.pairs.values())]
    if not timed:
        return words + "." if not kept else ""
    best = max(timed, key=lambda row: _real([pair for pair in row.pairs.values() if pair.ratio]))
    pairs = [pair for pair in best.pairs.values() if pair.ratio]
    labels = wording.setting_labels(cell.key for cell in results.timed)
    promised = wording.times(next((pair.theoretical_macs for pair in pairs), None))
    name = f"{wording.model_name(best.key.model)} by {best.key.method}"
    delivered = _deliveries({labels[wording.setting(pair.key)]: [pair] for pair in pairs})
    return f"{words}; of these {name} gains most: its MACs promise {promised}, {_place(pairs)}{_join(delivered)}."


def _deliveries(by_label: dict[str, list[PairResult]]) -> list[str]:
    """What each setting delivers; of many only the slowest and the fastest."""
    if len(by_label) > _NAMED_RUNTIMES:
        ordered = sorted(by_label, key=lambda label: _real(by_label[label]))
        by_label = {label: by_label[label] for label in (ordered[-1], ordered[0])}
    return [f"{wording.in_sentence(label)} {_delivery(pairs)}" for label, pairs in by_label.items()]


def _delivery(pairs: Sequence[PairResult]) -> str:
    real = _real(pairs)
    verdicts = {pair.verdict for pair in pairs}
    if verdicts == {"no change"}:
        return f"shows no measurable change ({wording.times(real)})"
    if real < 1.0:
        return f"is slower ({wording.times(real)})"
    share = realised(real, _mean([pair.theoretical_macs or 1.0 for pair in pairs]))
    notes = [f"realised {wording.percent(share)}"] if share is not None else []
    if verdicts == {"unknown"}:
        notes.append("one block, so no interval")
    return f"delivers {wording.times(real)}" + (f" ({', '.join(notes)})" if notes else "")


def _real(pairs: Sequence[PairResult]) -> float:
    return _mean([pair.ratio.ratio for pair in pairs if pair.ratio is not None])


def _on_every_setting(pairs: Sequence[PairResult]) -> Sequence[PairResult]:
    """Pairs of the networks that every setting finished, so that settings are compared on the same networks."""
    networks: dict[wording.Setting, set[str]] = {}
    for pair in pairs:
        networks.setdefault(wording.setting(pair.key), set()).add(pair.key.network.network_id)
    common = set.intersection(*networks.values())
    if common:
        return [pair for pair in pairs if pair.key.network.network_id in common]
    # no network is common to all: the setting with most networks speaks for itself
    most = max(networks, key=lambda one: len(networks[one]))
    return [pair for pair in pairs if wording.setting(pair.key) == most]


def _over(pairs: Sequence[PairResult]) -> str:
    networks = {pair.key.network.network_id for pair in pairs}
    models = list(dict.fromkeys(wording.model_name(pair.key.network.model) for pair in pairs))
    if len(networks) == 1:
        return f" for {models[0]}"
    if len(networks) == len(models) <= 3:
        return f" (mean of {_join(models)})"
    return f" (mean of {len(networks)} networks)"


def _place(pairs: Sequence[PairResult]) -> str:
    devices = {pair.key.device for pair in pairs}
    if len(devices) > 1:
        return ""
    device = devices.pop()
    return "on this machine " if device == "local" else f"on {device} "


def _no_answer(results: Results) -> str:
    if told := _of_cycles(results):
        return told
    left = sum(results.is_timed(key) for key in results.unfinished)
    done, wrong = len(results.timed), sum(not cell.ok for cell in results.timed)
    if results.counts_instructions and not left + done:
        return (
            "There is no answer: nothing is timed on emulated devices, only numbers compared and instructions counted."
        )
    if results.counts_cycles and not left + done:
        return "There is no answer: no dense and shrunk network are both simulated."
    if left:
        return (
            f"There is no answer yet: no masked and shrunk network are both measured; {left} "
            f"of {left + done} cells are still to be done."
        )
    if wrong:
        return (
            f"There is no answer: {wrong} of {done} cells did not end well, and no masked and shrunk "
            "network are left to compare."
        )
    return "There is no answer: the matrix holds no masked and shrunk network to compare."


def _of_cycles(results: Results) -> str:
    """What simulated accelerators deliver of one recipe: the one with most networks, the nearest to one half of these.

    Recipes of one ratio are not averaged: filters kept for the array's sake promise less and deliver it.
    """
    counted = [one for one in gains(results, "cycles") if one.gain and one.theoretical_macs]
    recipes = Counter(_recipe(one) for one in counted if one.key.network.pruning_ratio)
    if results.timed or not recipes:
        return ""
    at, method = min(recipes, key=lambda recipe: (-recipes[recipe], abs(recipe[0] - 0.5), recipe))
    mine = [one for one in counted if _recipe(one) == (at, method)]
    labels = target_labels(mine)
    delivered = []
    for setting, label in labels.items():
        own = [one for one in mine if wording.setting(one.key) == setting]
        delivered.append(f"{wording.times(_mean([one.gain or 1.0 for one in own]))} on {label}")
    networks = {one.key.network.network_id: one for one in mine}.values()
    models = list(dict.fromkeys(wording.model_name(one.key.network.model) for one in networks))
    over = f"mean of {len(networks)} networks" if len(networks) > len(models) else _join(models)
    by = f" by {method}" if len({other for _, other in recipes}) > 1 else ""
    promised = wording.times(_mean([one.theoretical_macs or 1.0 for one in networks]))
    words = f"Removing {wording.percent(at)} of the filters{by} promises {promised} by MACs ({over})"
    return f"{words}; an int8 accelerator's cycles fall {_join(delivered)}, simulated."


def _recipe(gain: CountGain) -> tuple[float, str]:
    """The ratio and the method, options included, of a pruned network."""
    return gain.key.network.pruning_ratio or 0.0, gain.key.network.method


def _mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
