"""Shrinking: masked networks become small networks with the same outputs. Start reading with `shrinker`."""

from edgeprune.shrinking.additions import Gather, IndexAdd
from edgeprune.shrinking.description import Saved, load_shrunk
from edgeprune.shrinking.report import LayerReport, ShrinkReport
from edgeprune.shrinking.shrinker import Shrunk, shrink
from edgeprune.shrinking.verify import largest_difference

__all__ = [
    "Gather",
    "IndexAdd",
    "LayerReport",
    "Saved",
    "ShrinkReport",
    "Shrunk",
    "largest_difference",
    "load_shrunk",
    "shrink",
]
