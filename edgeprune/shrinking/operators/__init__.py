"""The kinds of nodes the shrinker understands: one class each, and one line each in `OPERATORS`.

To add one, write a subclass of `base.Operator` (or `base.ChannelWise`) and name it below. The first that matches a node
has it; what none matches is `Opaque`, and the report names it.
"""

from __future__ import annotations

from torch import fx, nn

from edgeprune.shrinking.forms import Forms
from edgeprune.shrinking.operators.addition import Add
from edgeprune.shrinking.operators.attention import Attention, AttentionPart
from edgeprune.shrinking.operators.base import Boundary, Opaque, Operator
from edgeprune.shrinking.operators.constant import Constant
from edgeprune.shrinking.operators.elementwise import Elementwise
from edgeprune.shrinking.operators.group_norm import GroupNorm
from edgeprune.shrinking.operators.grouped import Grouped
from edgeprune.shrinking.operators.joining import Join
from edgeprune.shrinking.operators.layer_norm import LayerNorm
from edgeprune.shrinking.operators.mixing import Mixing
from edgeprune.shrinking.operators.normalisation import BatchNorm
from edgeprune.shrinking.operators.padding import Pad
from edgeprune.shrinking.operators.parameters import BareParameter
from edgeprune.shrinking.operators.pointwise import Pointwise, Spatial
from edgeprune.shrinking.operators.prelu import PReLU
from edgeprune.shrinking.operators.questions import ShapeAnswer, ShapeQuestion
from edgeprune.shrinking.operators.rearranging import Rearrange
from edgeprune.shrinking.operators.shaping import Concat, Crop, Flatten
from edgeprune.shrinking.operators.shuffling import Part, PixelShuffle, PixelUnshuffle, Shuffle
from edgeprune.shrinking.operators.slicing import Slice, Split

OPERATORS: tuple[Operator, ...] = (
    BareParameter(),
    Boundary(),
    Attention(),
    AttentionPart(),
    Mixing(),
    Grouped(),
    BatchNorm(),
    GroupNorm(),
    LayerNorm(),
    PReLU(),
    Pointwise(),
    Spatial(),
    Add(),
    Elementwise(),
    Shuffle(),
    Part(),
    PixelShuffle(),
    PixelUnshuffle(),
    Flatten(),
    Rearrange(),
    Split(),
    Slice(),
    Crop(),
    Pad(),
    Concat(),
    Join(),
    Constant(),
    ShapeQuestion(),
    ShapeAnswer(),
)
_OPAQUE = Opaque()


def operator_for(node: fx.Node, module: nn.Module | None, forms: Forms) -> tuple[Operator, tuple[fx.Node, ...]]:
    """The operator that understands this node, with the operands it analyses."""
    for operator in OPERATORS:
        operands = operator.match(node, module, forms)
        if operands is not None:
            return operator, operands
    return _OPAQUE, ()


__all__ = ["OPERATORS", "Opaque", "Operator", "operator_for"]
