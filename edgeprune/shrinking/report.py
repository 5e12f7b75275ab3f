"""What shrinking did, layer by layer, and why.

Start with `ShrinkReport`; `report_on` reads it off the plan and the new network, so it says what was done, not what
was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from edgeprune.shrinking.additions import IndexAdd
from edgeprune.shrinking.channels import Flags, varies
from edgeprune.shrinking.columns import Cut
from edgeprune.shrinking.copying import every_module
from edgeprune.shrinking.graph import Site
from edgeprune.shrinking.operators import Opaque
from edgeprune.shrinking.operators.base import Boundary
from edgeprune.shrinking.operators.kernels import LAYERS
from edgeprune.shrinking.patterns import ONE
from edgeprune.shrinking.plan import Plan
from edgeprune.shrinking.tracing import has_parameters


@dataclass(frozen=True)
class LayerReport:
    """One layer with parameters, before and after.

    Attributes:
        layer: Name of the module in the model; of a functional call on bare parameters, its weight and class.
        op: Its class.
        notes: What went and why, such as "7 outputs: dead filter".
    """

    layer: str
    op: str
    in_before: int
    in_after: int
    out_before: int
    out_after: int
    params_before: int
    params_after: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ShrinkReport:
    """What shrinking did.

    Attributes:
        layers: One row a layer with parameters, in the order they run.
        unknown: Operators that were left alone with all the channels they read, as "name (operator)".
        index_additions: Additions that became indexation-additions, by name.
        params_before: Parameters of the masked network.
        params_after: Parameters of the shrunk network.
        difference: Largest difference of the outputs found by the check, as a fraction of the largest output.
        notes: What else a reader should know.
    """

    layers: tuple[LayerReport, ...]
    unknown: tuple[str, ...]
    index_additions: tuple[str, ...]
    params_before: int
    params_after: int
    difference: float
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was removed."""
        return any(row.params_after != row.params_before for row in self.layers)

    def __str__(self) -> str:
        lines = [f"{self.params_before} -> {self.params_after} parameters"]
        for row in self.layers:
            widths = f"{row.in_before}x{row.out_before} -> {row.in_after}x{row.out_after}"
            lines.append(f"  {row.layer} {row.op} {widths}" + "".join(f"; {note}" for note in row.notes))
        lines += [f"  left alone: {name}" for name in self.unknown]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def report_on(
    plan: Plan,
    shrunk: fx.GraphModule,
    masked: nn.Module,
    difference: float,
    lowered: Mapping[str, nn.Module],
    shared: list[list[str]],
    cuts: Mapping[str, Cut],
) -> ShrinkReport:
    """Read the report off a plan and the network made from it.

    Args:
        plan: What was decided.
        shrunk: The network made from it.
        masked: The network that the plan is for.
        difference: What the check found.
        lowered: Layers of the new network that are functional calls now, by name.
        shared: The names of each parameter that several modules of the masked network share.
        cuts: What became of kernel columns that are zero, by layer.
    """
    network = plan.network
    own = _named_modules(shrunk)
    left = own | dict(lowered)
    calls = [site for site in _first_calls(plan) if _is_layer(site)]
    layers = tuple(_layer_report(site, plan, left.get(site.name), cuts.get(site.name)) for site in calls)
    unknown = tuple(
        f"{site.name} ({site.kind})"
        for site in network.sites
        if isinstance(site.operator, Opaque)
        and not isinstance(site.operator, Boundary)
        and site.node.all_input_nodes
        and any(network.by_node[x].channels for x in site.node.all_input_nodes)
    )
    index_additions = tuple(name for name, module in left.items() if isinstance(module, IndexAdd))
    params_before, params_after = _count_params(every_module(masked)), _count_params(own.values())
    notes = []
    if params_after == params_before and not any(row.notes for row in layers):
        notes.append("nothing to remove: the network has no zero filter that could go")
    if any(site.shared for site in network.sites):
        names = sorted({site.name for site in network.sites if site.shared})
        notes.append(f"called several times, so its calls keep the same channels: {', '.join(names)}")
    untied = _untied(shared, shrunk)
    notes += [f"shared one parameter, but train apart now: {', '.join(names)}" for names in untied]
    for reason in sorted({site.operator.needs_all for site in network.sites} - {""}):
        names = [site.name for site in network.sites if site.operator.needs_all == reason]
        notes.append(f"kept: {reason} ({', '.join(names)})")
    return ShrinkReport(layers, unknown, index_additions, params_before, params_after, difference, tuple(notes))


def _count_params(modules: Iterable[nn.Module]) -> int:
    """Number of the modules' own parameters, each counted once."""
    tables = [module._parameters.values() for module in modules]
    counted = {id(parameter): parameter for table in tables for parameter in table if parameter is not None}
    return sum(map(torch.Tensor.numel, counted.values()))


def _params_of(layer: nn.Module) -> int:
    return _count_params(every_module(layer) if layer._modules else (layer,))


def _named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """What model.named_modules() gives; torch's nested generators take several times as long."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def note(name: str, module: nn.Module) -> None:
        seen.add(id(module))
        found[name] = module
        for step, inner in module._modules.items():
            if inner is not None and id(inner) not in seen:
                note(f"{name}.{step}" if name else step, inner)

    note("", model)
    return found


def _untied(groups: list[list[str]], shrunk: nn.Module) -> list[list[str]]:
    """Names of each parameter that several modules of the masked network share, and those of the shrunk one do not."""
    left = dict(shrunk.named_parameters(remove_duplicate=False)) if groups else {}
    tied = [[name for name in group if name in left] for group in groups]
    return [group for group in tied if len({id(left[name]) for name in group}) > 1]


def _first_calls(plan: Plan) -> list[Site]:
    """Of each layer its first call, or the first that is left."""
    calls: dict[str, Site] = {}
    for site in plan.network.sites:
        before = calls.setdefault(site.name, site)
        if plan.decisions[site.node].live and not plan.decisions[before.node].live:
            calls[site.name] = site
    return list(calls.values())


def _is_layer(site: Site) -> bool:
    return site.module is not None and has_parameters(site.module)


def _layer_report(site: Site, plan: Plan, after: nn.Module | None, cut: Cut | None) -> LayerReport:
    in_before = plan.network.by_node[site.operands[0]].channels if site.operands else site.channels
    in_after = _width(after, ("in_channels", "in_features", "num_features"), in_before) if cut is None else cut.inputs
    out_after = _width(after, ("out_channels", "out_features", "num_features"), site.channels)
    return LayerReport(
        layer=site.name,
        op=site.kind,
        in_before=in_before,
        in_after=in_after,
        out_before=site.channels,
        out_after=out_after,
        params_before=_params_of(site.module) if site.module is not None else 0,
        params_after=0 if after is None else _params_of(after),
        notes=(*_notes(site, plan, gone=after is None), *(() if cut is None else cut.notes)),
    )


def _width(module: nn.Module | None, attributes: tuple[str, ...], otherwise: int) -> int:
    if module is None:
        return 0
    for name in attributes:
        if name in vars(module):  # a module takes its time to say that it has no such attribute
            return int(vars(module)[name])
    return next((int(getattr(module, name)) for name in attributes if hasattr(module, name)), otherwise)


def _notes(site: Site, plan: Plan, *, gone: bool) -> list[str]:
    constants, decision = plan.constants[site.node], plan.decisions[site.node]
    held = np.zeros(site.channels, dtype=np.bool_)
    held[plan.layouts[site.node]] = not gone
    dead = site.kernels.dead if isinstance(site.module, LAYERS) else np.zeros_like(held)
    settled = ~varies(constants)
    causes: dict[str, int] = {}
    if np.count_nonzero(held) < len(held):
        gone_alive = ~(held | dead)
        _count(causes, ~held & dead, "outputs removed: dead filter")
        _count(causes, gone_alive & settled, "outputs removed: constant")
        _count(causes, gone_alive & ~settled, "outputs removed: nothing needs them")
    if ONE in decision.carriers and held[decision.carriers[ONE]]:
        causes["output kept as the carrier of constants before a zero border"] = 1
        settled[decision.carriers[ONE]] = False
    if site.node in plan.held:
        on_purpose = held & plan.held[site.node]
        _count(causes, on_purpose, "outputs kept on purpose: aligned widths, cheaper sums")
        held = held & ~on_purpose
    if np.count_nonzero(held & (settled | ~decision.valued)):
        _count(causes, held & settled & decision.valued, "constant outputs kept: a reader takes them as they are")
        _count(causes, held & ~(settled | decision.valued), "outputs kept to fill a place")
    return [f"{count} {cause}" for cause, count in (causes | _inputs(site, plan, layer_gone=gone)).items()]


def _inputs(site: Site, plan: Plan, *, layer_gone: bool) -> dict[str, int]:
    """Why a layer reads fewer inputs than before: every removed one is counted once."""
    causes: dict[str, int] = {}
    if not site.operands or not isinstance(site.module, LAYERS):
        return causes
    given = plan.constants[site.operands[0]]
    gone = np.ones(len(given), dtype=np.bool_)
    if layer_gone:
        _count(causes, gone, "inputs removed: the layer is gone")
        return causes
    gone[plan.reads(site)] = False
    if not np.count_nonzero(gone):
        return causes
    zero = given == 0.0
    into = "the carrier's kernels" if site.kernels.sees_border else "the bias"
    _count(causes, gone & zero, "inputs removed: zero")
    gone &= ~zero
    if np.count_nonzero(gone):
        asked = [wish for operand, wish in plan.asked[site.node] if operand is site.operands[0]]
        matters = asked[0].value | asked[0].merge if asked else zero
        _count(causes, gone & matters, f"constant inputs removed: folded into {into}")
        _count(causes, gone & ~matters, "inputs removed: not connected")
    return causes


def _count(causes: dict[str, int], flags: Flags, cause: str) -> None:
    count = int(np.count_nonzero(flags))
    if count:
        causes[cause] = count
