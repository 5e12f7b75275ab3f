"""What a layer's width costs on an array: from the facts that a simulated accelerator tells of itself.

Start with `staircases`. The facts hold a list of [channels, cycles, MACs], of one layer at every width.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.reporting.results import Results

STAIRCASE = "staircase"
_SAME = 1.005  # cycles that differ by less are the same step


@dataclass(frozen=True)
class Step:
    """A layer of so many channels, in and out."""

    channels: int
    cycles: int
    macs: int


def staircases(results: Results) -> dict[str, list[Step]]:
    """The steps of each simulated accelerator of the run, by its name, widths rising."""
    return {
        name: sorted((Step(*step) for step in facts[STAIRCASE]), key=lambda step: step.channels)
        for name, facts in results.devices.items()
        if facts.get(STAIRCASE)
    }


def steps_in_words(results: Results) -> list[str]:
    """For each accelerator the narrowest layer that costs what the widest does, and what a step is."""
    said = []
    for name, steps in staircases(results).items():
        widest = steps[-1]
        narrowest = next(step for step in steps if step.cycles * _SAME >= widest.cycles)
        below = [step for step in steps if step.channels < narrowest.channels]
        if narrowest is widest or not below:
            continue
        less = 100 * (1 - narrowest.macs / widest.macs)
        saved = 100 * (1 - narrowest.cycles / widest.cycles)
        more = 100 * (1 - below[-1].cycles / widest.cycles)
        said.append(
            f"{name}: pruning a 3x3 layer from {widest.channels} to {narrowest.channels} channels removes {less:.0f} %"
            f" of its MACs and {saved:.0f} % of its cycles; one channel less removes {more:.0f} % of the cycles:"
            f" align widths to {widest.channels - below[-1].channels} (prune: align)"
        )
    return said
