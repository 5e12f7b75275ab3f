"""A shrunk network as two files that need neither the code it was made from nor pickle.

Start with `save_shrunk` and `load_shrunk`. `NAME.safetensors` holds the state dict, `NAME.json` the description: the
graph, the layers and their settings, and the report. Loading makes a plain module of torch.nn's layers again; it runs
nothing that stands in a file.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, fx, nn

from edgeprune import __version__
from edgeprune.errors import ModelError, UserError, WeightsError
from edgeprune.shrinking.blueprints import blueprint, built
from edgeprune.shrinking.notation import NeedsCodeError, read_graph, require_dotted, written_graph
from edgeprune.shrinking.report import ShrinkReport
from edgeprune.shrinking.rewrite import install
from edgeprune.storage import write_whole

SCHEMA = 1
"""Number of the description's form: 1 is the first."""

_KIND = "edgeprune shrunk network"
_SUFFIXES = (".safetensors", ".json")
_BESIDE = (".pt", ".onnx")
"""What else `edgeprune shrink` writes under the same NAME."""


@dataclass(frozen=True)
class Saved:
    """The files of a saved network.

    Attributes:
        state: The state dict.
        description: The graph, the layers and the report.
        needs_code: Parts that only the user's own code can make, by name: with any, `load_shrunk` can not.
    """

    state: Path
    description: Path
    needs_code: tuple[str, ...]


def save_shrunk(model: fx.GraphModule, report: ShrinkReport, path: str | Path) -> Saved:
    """Write a shrunk network as NAME.safetensors and NAME.json.

    Args:
        model: The network.
        report: What was done to get it; it is kept with it.
        path: The files' place and NAME, a suffix of such a file is dropped; folders on the way are made.

    Raises:
        UserError: The path ends in "/" or names no file.
        StorageError: A file cannot be written.

    Warns:
        UserWarning: The network holds modules of the user's own class: their code is needed to make it again.
    """
    stem = _stem(path)
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {name: first[id(x)] for name, x in state.items() if first.setdefault(id(x), name) != name}
    plan: dict[str, Any] = {
        "kind": _KIND,
        "schema": SCHEMA,
        "versions": {"edgeprune": __version__, "torch": str(torch.__version__)},
        "network": type(model).__name__,
        "dtypes": sorted({str(x.dtype).removeprefix("torch.") for x in state.values() if x.is_floating_point()}),
        "tied": tied,
        "frozen": [name for name, x in model.named_parameters(remove_duplicate=False) if not x.requires_grad],
        "report": dataclasses.asdict(report),
    }
    needs_code = _describe(model, plan)
    plan["needs_code"] = needs_code
    content = {name: x.detach().contiguous().clone() for name, x in state.items() if name not in tied}
    state_path, plan_path = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    write_whole(state_path, bytes_of(content, metadata={"format": "pt"}))
    write_whole(plan_path, (json.dumps(plan, indent=1, allow_nan=False) + "\n").encode())
    if needs_code:
        warnings.warn(
            f"{plan_path.name} can not be loaded without your own code, for {', '.join(needs_code)}: shrink again and "
            f"load {state_path.name} into the result, or build the network of torch.nn's layers",
            stacklevel=2,
        )
    return Saved(state_path, plan_path, tuple(needs_code))


def load_shrunk(path: str | Path, device: str | torch.device = "cpu") -> fx.GraphModule:
    """The network that `save_shrunk` wrote, in eval mode: the same numbers, the same names of parameters.

    Args:
        path: The NAME that it was saved under, or any file of that name that `edgeprune shrink` wrote.
        device: Where its tensors go.

    Raises:
        UserError: The path names a folder, or the device can not be used here.
        ModelError: There is no description, or it is none that this edgeprune writes.
        WeightsError: The state does not fit the description.

    Example:
        >>> import tempfile
        >>> from edgeprune.shrinking import shrink
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shrink(net, torch.zeros(1, 3, 8, 8)).save(f"{folder}/net")
        ...     load_shrunk(f"{folder}/net").get_submodule("2").in_channels
        4
    """
    stem = _stem(path)
    state_path, plan_path = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    plan = _read_plan(plan_path)
    state = _read_state(state_path)
    try:
        state |= {name: state[of] for name, of in plan["tied"].items() if of in state}
        model = _assemble(plan, state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{plan_path} is no whole description: {type(error).__name__}: {error}", hint="save the network again"
        ) from error
    return _moved(model, device).eval()


def _moved(model: fx.GraphModule, device: str | torch.device) -> fx.GraphModule:
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: torch without CUDA
        cause = str(error).partition("\n")[0]
        raise UserError(f"no device {str(device)!r} is usable here: {cause}", hint='such as "cpu" or "cuda"') from error


def _describe(model: fx.GraphModule, plan: dict[str, Any]) -> list[str]:
    """Add the graph and the modules to the plan; returns what can not be described."""
    needs_code: list[str] = []
    modules: dict[str, Any] = {}
    for name in dict.fromkeys(str(node.target) for node in model.graph.nodes if node.op == "call_module"):
        try:
            modules[name] = blueprint(name, model.get_submodule(name))
        except NeedsCodeError as reason:
            needs_code.append(str(reason))
    try:
        plan["graph"] = written_graph(model.graph)
    except NeedsCodeError as reason:
        needs_code.append(str(reason))
    plan["modules"] = modules
    trained = dict(model.named_parameters(remove_duplicate=False))
    read = dict.fromkeys(str(node.target) for node in model.graph.nodes if node.op == "get_attr")
    plan["tensors"] = {name: name in trained for name in read}
    return needs_code


def _read_plan(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(
            f"no description {path}", hint="a network is saved by Shrunk.save as NAME.json and .safetensors"
        )
    try:
        plan = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no JSON: {error}", hint="save the network again") from error
    if not isinstance(plan, dict) or plan.get("kind") != _KIND:
        raise ModelError(f"{path} describes no shrunk network", hint="name a file that Shrunk.save wrote")
    if plan.get("schema") != SCHEMA:
        raise ModelError(
            f"{path} is of schema {plan.get('schema')}, this edgeprune reads {SCHEMA}",
            hint=f"it was written by edgeprune {plan.get('versions', {}).get('edgeprune')}: use that, or save again",
        )
    if plan.get("needs_code"):
        raise ModelError(
            f"{path} needs your own code, for {', '.join(map(str, plan['needs_code']))}",
            hint="shrink the masked network again and load the .safetensors into the result",
        )
    return plan


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"no state {path}", hint="it belongs beside the description: copy both files again")
    try:
        return tensors_of(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file: {error}", hint="it lies beside the description: copy both again"
        ) from error


def _assemble(plan: Mapping[str, Any], state: dict[str, Tensor]) -> fx.GraphModule:
    parts: dict[str, Any] = {require_dotted(name): built(one) for name, one in plan["modules"].items()}
    for name, module in parts.items():
        own = {key: state[f"{name}.{key}"] for key in module.state_dict() if f"{name}.{key}" in state}
        _fill(name, module, own)
    for name, trained in plan["tensors"].items():
        if name not in state:
            raise WeightsError(f"the state lacks {name}", hint="copy both files of the network again")
        value = state[require_dotted(name)]
        parts[name] = nn.Parameter(value, value.is_floating_point()) if trained else value
    graph = read_graph(plan["graph"])
    model = fx.GraphModule(nn.Module(), fx.Graph(), class_name=_class_name(plan["network"]))
    for name in dict.fromkeys(str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")):
        install(model, name, parts[name])
    model.graph = graph
    _tie(model, plan["tied"])
    for name in plan["frozen"]:
        model.get_parameter(name).requires_grad_(False)
    unread = state.keys() - model.state_dict().keys()
    if unread:
        raise WeightsError(f"the state holds {min(unread)}, which the network has not", hint="copy both files again")
    return model


def _fill(name: str, module: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise WeightsError(f"the state does not fit {name}: {cause}", hint="copy both files again") from error
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def _tie(model: nn.Module, tied: Mapping[str, str]) -> None:
    """Make one parameter of those that were one."""
    for name, of in tied.items():
        path, _, last = name.rpartition(".")
        owner = model.get_submodule(path)
        home, _, leaf = of.rpartition(".")
        other = model.get_submodule(home)
        table = owner._parameters if last in owner._parameters else owner._buffers
        table[last] = getattr(other, leaf)


def _class_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ModelError(f"{str(name)[:60]!r} is no name of a class", hint="use a description that edgeprune wrote")
    return name


def _stem(path: str | Path) -> Path:
    """The place and NAME of a network's files, given with or without the suffix of any of them."""
    place = Path(path)
    if not place.name or str(path).endswith("/"):
        raise UserError(f"{str(path)!r} names a folder", hint="give a NAME in it, such as folder/shrunk")
    return place.with_suffix("") if place.suffix in (*_SUFFIXES, *_BESIDE) else place
