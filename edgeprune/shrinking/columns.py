"""Kernel columns that are zero in all filters: smaller kernels, and columns gathered for a matrix product.

Start with `cut_columns`, which goes over the convolutions of a shrunk network once their channels are cut out. Outer
rows and columns of the kernel that no channel has go with the padding that they need (shape pruning: 3x3 becomes 1x3,
2x2 ...), and regular gaps become dilation. Single columns (c, r, s) go where `KernelColumns` gathers the others in
front of a 1x1 convolution. What these ways cost, `kernel_forms` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import fx, nn

from edgeprune.shrinking.graph import Site
from edgeprune.shrinking.kernel_columns import KernelColumns
from edgeprune.shrinking.kernel_forms import Columns, Convolution, forms, live_columns
from edgeprune.shrinking.operators.kernels import CONVOLUTIONS
from edgeprune.shrinking.plan import Plan
from edgeprune.shrinking.rewrite import install

COLUMNS = ("auto", "gather", "keep")


@dataclass(frozen=True)
class Cut:
    """What became of one convolution's kernels.

    Attributes:
        inputs: How many channels it reads.
        notes: What was cut, and what zeros were left, in words.
    """

    inputs: int
    notes: tuple[str, ...]


def cut_columns(plan: Plan, shrunk: fx.GraphModule, columns: str) -> dict[str, Cut]:
    """Make the kernels of a network smaller where columns are zero; it is changed in place.

    Args:
        plan: What the network was made by: it knows the images' sizes.
        shrunk: Of it, transposed convolutions stay, padding with other numbers than zero, and groups of several widths.
        columns: "auto" takes the way of least estimated time, copies included, so that zeros may stay; "gather" the
            one of fewest weights: no zero columns stay, but in groups, each of which has columns of its own; "keep"
            no other.

    Returns:
        What was done and left, by the layer's name; nothing of layers without zero columns.
    """
    cuts: dict[str, Cut] = {}
    calls = _calls(shrunk) if columns != "keep" else {}
    for site in plan.network.sites:
        layer = shrunk.get_submodule(site.name) if site.name in calls and site.name not in cuts else None
        # the type as it stands: a subclass may compute anything
        if not isinstance(layer, CONVOLUTIONS) or type(layer) not in CONVOLUTIONS or not _is_cut(site, layer):
            continue
        alive = live_columns(layer)
        if not alive.all():
            cuts[site.name] = _cut(site, layer, alive, shrunk, calls[site.name], smallest=columns == "gather")
    if cuts:
        shrunk.recompile()
    return cuts


def _calls(shrunk: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """The calls of each module, but for those that are told anything besides one tensor."""
    calls: dict[str, list[fx.Node]] = {}
    for node in shrunk.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    return {name: nodes for name, nodes in calls.items() if all(len(one.args) == 1 and not one.kwargs for one in nodes)}


def _is_cut(site: Site, layer: Convolution) -> bool:
    """Whether it reads a batch of images with zeros around them, by a kernel of more than one place."""
    batched = site.form is not None and bool(site.operand_forms) and site.form.rank == layer.weight.dim()
    return batched and layer.padding_mode == "zeros" and prod(layer.kernel_size) > 1


def _cut(
    site: Site, layer: Convolution, alive: Columns, shrunk: fx.GraphModule, calls: list[fx.Node], *, smallest: bool
) -> Cut:
    if not alive.any():  # it only fills a place
        alive[(0, *(size // 2 for size in layer.kernel_size))] = True
    written = 0 if site.form is None else site.form.pixels
    ways = forms(layer, alive, site.operand_forms[0].pixels, written)
    way = min(ways, key=lambda one: (one.columns, one.work) if smallest else (one.work, one.columns))
    made, before = way.build()
    if made is not layer:
        install(shrunk, site.name, made)
    if before is not None:
        _insert(shrunk, calls, f"{site.name}_columns", before)
    left, inputs = int(alive.sum()), layer.in_channels
    if isinstance(before, KernelColumns):
        inputs = int(alive.reshape(len(alive), -1).any(axis=1).sum())
    zeros = f"{way.columns - left} of {way.columns} kernel columns are zero and stay"
    return Cut(inputs, tuple(note for note in (way.note, zeros if left < way.columns else "") if note))


def _insert(shrunk: fx.GraphModule, calls: list[fx.Node], name: str, before: nn.Module) -> None:
    """Put a module in front of the calls of another."""
    taken = {str(node.target) for node in shrunk.graph.nodes}
    while name in taken:
        name += "_"
    install(shrunk, name, before.eval())
    for call in calls:
        with shrunk.graph.inserting_before(call):
            call.args = (shrunk.graph.call_module(name, call.args),)
