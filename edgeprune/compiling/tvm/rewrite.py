"""Every rewrite of a `Graph` before it goes to TVM, in order; they need its weights and nothing of TVM.

A shrunk residual network adds tensors that have different channels left, so the channels of one or both are gathered:
`Pad` appends a zero channel, or `Concat` constants, and `Gather` picks. `channels.py` makes one node of that,
`additions.py` one node of the whole addition and the convolution before it. `folding.py` gives batch-norms, and gathers
that are left, to the convolutions before them. What is left then is copied by `gather.py`.
"""

from __future__ import annotations

from edgeprune.compiling.tvm.additions import fuse_additions
from edgeprune.compiling.tvm.channels import merge_gathers
from edgeprune.compiling.tvm.folding import VectorCount, fold_batch_norms, fold_gathers
from edgeprune.compiling.tvm.graph import Graph, drop_unused


def rewrite(graph: Graph, vectors: VectorCount) -> Graph:
    """Apply every rewrite, then drop what nothing reads.

    Args:
        graph: The network as read.
        vectors: How many vectors hold so many channels.
    """
    gathered = merge_gathers(fold_batch_norms(graph))
    return drop_unused(fold_gathers(fuse_additions(gathered), vectors))
