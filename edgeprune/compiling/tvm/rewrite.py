"""Every rewrite of a `Graph` before it goes to TVM, in order; they need its weights and nothing of TVM.

A shrunk residual network adds tensors that have different channels left, so the channels of one or both are gathered:
`Pad` appends a zero channel, or `Concat` constants, and `Gather` picks. `channels.py` makes one node of that,
`additions.py` one node of the whole addition and the convolution before it. `folding.py` gives batch-norms, and gathers
that are left, to the convolutions before them. What is left then is copied by `gather.py`. `groups.py` fills up the
groups of grouped convolutions, `transposed.py` makes ordinary convolutions of transposed ones.
"""

from __future__ import annotations

from edgeprune.compiling.tvm.additions import fuse_additions
from edgeprune.compiling.tvm.channels import merge_gathers
from edgeprune.compiling.tvm.folding import fold_batch_norms, fold_gathers
from edgeprune.compiling.tvm.graph import Graph, drop_unused
from edgeprune.compiling.tvm.groups import fill_up_groups
from edgeprune.compiling.tvm.transposed import split_transposed


def rewrite(graph: Graph, lanes: int) -> Graph:
    """Apply every rewrite, then drop what nothing reads.

    Args:
        graph: The network as read.
        lanes: float32 lanes of the target's vector.
    """
    plain = fill_up_groups(fold_batch_norms(split_transposed(graph, lanes)), lanes)
    gathered = merge_gathers(plain)
    return drop_unused(fold_gathers(fuse_additions(gathered), lambda channels: -(-channels // lanes)))
