"""`shrink`: from a masked network to the small network that gives the same numbers.

The way: `copying` makes a private copy; `graph` traces it, by `tracing` or by `exported`; `constants` runs forwards and
`liveness` backwards, while `streams` makes sums cheap and `alignment` rounds widths up; `plan` puts the channels in
order; `rewrite` builds the new network through `operators`, `columns` makes its kernels smaller, and `lowering` makes
functional calls again; `probing` draws inputs on which `verify` and `choices` compare the two; `report` says what went
and why. `gradient` is the paper's own way to what is needed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.shrinking.alignment import cost_and_gain
from edgeprune.shrinking.channels import Flags
from edgeprune.shrinking.choices import verify_choices
from edgeprune.shrinking.columns import COLUMNS, cut_columns
from edgeprune.shrinking.constants import propagate
from edgeprune.shrinking.copying import private_copy
from edgeprune.shrinking.description import Saved, save_shrunk
from edgeprune.shrinking.exported import hold_sizes
from edgeprune.shrinking.gradient import connectivity
from edgeprune.shrinking.graph import Network, as_tuple, trace
from edgeprune.shrinking.lowering import lower
from edgeprune.shrinking.operators.kernels import is_plain
from edgeprune.shrinking.plan import arrange, settle
from edgeprune.shrinking.probing import probe
from edgeprune.shrinking.report import ShrinkReport, report_on
from edgeprune.shrinking.rewrite import rewrite
from edgeprune.shrinking.tying import tie
from edgeprune.shrinking.verify import measure, verify

ADDITIONS = ("auto", "gather")
CONSTANTS = ("exact", "drop")
METHODS = ("connectivity", "gradient")
ALIGNMENTS = (8, 16)


@dataclass(frozen=True)
class Shrunk:
    """A shrunk network, in eval mode with parameters of its own, and what was done to get it.

    Both of torch's ONNX exporters take the model. TorchScript's (`dynamo=False`) fails on any fx.GraphModule that is
    given dynamic_axes without both input_names and output_names: it takes `model.graph` for a graph of its own.
    """

    model: fx.GraphModule
    report: ShrinkReport

    def save(self, path: str | Path) -> Saved:
        """Write NAME.safetensors and NAME.json, which `load_shrunk` makes the network of again: see `description`."""
        return save_shrunk(self.model, self.report, path)


@contextmanager
def _without_collector() -> Iterator[None]:
    """No search for unreachable cycles: nearly all that shrinking makes stays, and each search walks the process.

    A search among young objects comes first: every torch.fx graph is a cycle, so networks that an earlier call made and
    nobody kept would else pile up.
    """
    enabled = gc.isenabled()
    if enabled:
        gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collector()
def shrink(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...],
    additions: str = "auto",
    constants: str = "exact",
    *,
    method: str = "connectivity",
    align: int | None = None,
    columns: str = "auto",
) -> Shrunk:
    """Remove what zeroed filters made useless from a network, and prove that its outputs are the same.

    The masks are read from the weights, whoever zeroed them. A channel goes when it is constant and can be folded into
    its readers, or when nothing needs it (two-way connectivity; effects_of_structured_pruning_2022, section 3).

    Args:
        model: The masked network; it is not changed, and is taken in eval mode.
        example_inputs: One tensor [N, C, ...] or the tuple of forward's positional arguments. Those that it leaves out
            have their defaults for good: they are no inputs of the shrunk network.
        additions: How tensors with different channels are summed. "gather" gathers each operand that lacks some of the
            channels or holds them in another order: the smallest network. "auto" chooses the cheapest form for each
            sum: it reorders channels, keeps a few zero rows, of at most a thousandth of the network (`streams`), and
            layers read numbers that are there for others where cutting them out would take longer.
        constants: "exact" keeps every constant that removed filters leave behind. "drop" takes those that their biases
            and normalisations leave for zeros, as the paper does: the network's function may change, by what
            `report.difference` says.
        method: How it is found which channels are needed: "connectivity" asks each operator; "gradient" also asks the
            paper's own method (section 3.3, algorithm 1), which is slower and knows fewer operators (`gradient`).
        align: Round widths up to a multiple of 8 or 16, the channels of one vector, by removed filters that then stay;
            the report says what that costs and gains (`alignment`).
        columns: What becomes of kernel columns [:, c, r, s] that are zero. "auto" makes kernels smaller, and gathers
            single columns in front of a matrix product, where that is less work, the copies counted; "gather" gathers
            them whatever it costs: the fewest weights; "keep" leaves all kernels as large as they are (`columns`).

    Returns:
        The shrunk network and the report.

    Raises:
        UnknownNameError: An option that does not exist.
        UserError: `align` is not 8, 16 or None.
        TraceError: Neither torch.fx nor torch.export can follow forward.
        ModelError: The model is no module, holds no numbers, can not be copied, or does not take the example inputs.
        WeightsError: A weight is NaN or infinite.
        NoRuleError: "gradient" has no rule for an operator.
        ShrinkError: The result would not equal the masked network, or nothing can be compared, since the masked network
            itself gives NaN for the example inputs.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
        >>> with torch.no_grad():
        ...     net[0].weight[1:] = 0.0
        >>> shrink(net, torch.zeros(1, 3, 8, 8)).model.get_submodule("0").out_channels
        1
    """
    if additions not in ADDITIONS:
        raise UnknownNameError("form of additions", additions, ADDITIONS)
    if constants not in CONSTANTS:
        raise UnknownNameError("treatment of constants", constants, CONSTANTS)
    if method not in METHODS:
        raise UnknownNameError("method of shrinking", method, METHODS)
    if columns not in COLUMNS:
        raise UnknownNameError("treatment of kernel columns", columns, COLUMNS)
    if align is not None and (type(align) is not int or align not in ALIGNMENTS):
        raise UserError(f"widths can not be aligned to {align!r}", hint="align is 8, 16 or None")
    inputs, exact = as_tuple(example_inputs), constants == "exact"
    masked = private_copy(model)
    network = trace(masked, inputs)
    known = propagate(network, drop=not exact)
    alive = _alive(network, inputs, exact=exact) if method == "gradient" else None
    cheap = additions == "auto"
    plan = arrange(settle(network, known, alive, cheap_sums=cheap, align=align), reorder=cheap)
    shrunk, places = rewrite(plan, type(model).__name__)
    cuts = cut_columns(plan, shrunk, columns)
    lowered = lower(shrunk, network.root.functional)
    shared = tie(masked, plan, shrunk)
    notes = list(hold_sizes(network.root, shrunk, inputs))
    random = probe(network, inputs)
    if exact:
        difference = verify(masked, shrunk, random, inputs)
        difference = max(difference, verify_choices(plan, shrunk, places, random, inputs))
    else:
        difference = measure(masked, shrunk, [inputs, random])
    if model.training:
        notes.append("the model was in training mode and is taken in evaluation mode")
    if network.root.left_out:
        names = ", ".join(network.root.left_out)
        notes.append(f"forward's arguments that the example leaves out have their defaults, and are no inputs: {names}")
    if not is_plain(masked):
        notes.append("hooks and patches of the model itself, which change none of its outputs, are not taken over")
    if not exact:
        notes.append(f"constants of removed filters were dropped: outputs differ by {difference:.1e} of the largest")
    if align is not None:
        notes.append(cost_and_gain(align, plan))
    report = report_on(plan, shrunk, masked, difference, lowered, shared, cuts)
    return Shrunk(shrunk, replace(report, notes=(*report.notes, *notes)))


def _alive(network: Network, inputs: tuple[Any, ...], *, exact: bool) -> Mapping[fx.Node, Flags]:
    """Channels that the paper's method keeps; where constants stay, also those that only constants reach."""
    found = connectivity(network, inputs, factors_matter=exact)
    return found.needed if exact else found.alive
