"""What a matrix may not say although every key and type is right: unknown names, things twice, nothing to measure.

Start with `check_names`. No name is looked up by importing a framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeprune import transport
from edgeprune.errors import DatasetError, MatrixError, UserError, nearest_hint
from edgeprune.lines import Lines, Place
from edgeprune.transport import Device

if TYPE_CHECKING:
    from edgeprune.matrix.spec import DataSpec, MatrixSpec


def check_names(spec: MatrixSpec, lines: Lines) -> None:
    """Every name must be known before the first cell runs; no name is looked up by importing a framework."""
    from edgeprune import compiling, datasets, models, pruning

    def known(what: str, wrong: str, allowed: list[str], where: Place) -> None:
        if wrong not in allowed:
            raise MatrixError(f"{lines.place(where)}: unknown {what} {wrong!r}", hint=nearest_hint(wrong, allowed))

    _check_data(spec.data, ("data",), lines)
    for number, model in enumerate(spec.models):
        if model.data is not None:
            _check_data(model.data, ("models", number, "data"), lines)
        if not model.is_users_own:
            known("model", model.name, models.names(), ("models", number))
            wanted, given = models.entry(model.name).task, datasets.entry(spec.data_of(model).name).task
            if wanted != given:
                place = lines.place(("models", number))
                raise MatrixError(f"{place}: {model.name} is for {wanted}, {spec.data_of(model).name} for {given}")
            for option in model.options:
                known("option", option, sorted(models.entry(model.name).options), ("models", number, "options", option))
    for number, recipe in enumerate(spec.prune):
        for at, name in enumerate(recipe.models):
            known("model of this matrix", name, [one.name for one in spec.models], ("prune", number, "models", at))
        for at, method in enumerate(recipe.method):
            if method in pruning.NOT_HERE:
                place = lines.place(("prune", number, "method", at))
                raise MatrixError(f"{place}: method {method} is not here: {pruning.NOT_HERE[method][0]}")
            if pruning.users_place(method) is None:
                known("method", method, pruning.methods(), ("prune", number, "method", at))
            try:
                pruning.check_options(method, recipe.options)
            except UserError as error:
                place = lines.place(("prune", number, "options"))
                raise MatrixError(f"{place}: {error.message}", hint=error.hint) from None
    for number, runtime in enumerate(spec.runtimes):
        known("runtime", runtime, compiling.runtimes(), ("runtimes", number))
    for number, device in enumerate(spec.devices):
        _check_device(spec, device, ("devices", number), lines)
    try:
        _ = spec.plan
    except UserError as error:
        raise MatrixError(f"{lines.place(('measure',))}: {error.message}", hint=error.hint) from None


def _check_data(data: DataSpec, where: Place, lines: Lines) -> None:
    """The dataset is known, and the user's folder is there."""
    from edgeprune import datasets

    if data.name not in datasets.names():
        hint = nearest_hint(data.name, datasets.names())
        raise MatrixError(f"{lines.place(where)}: unknown dataset {data.name!r}", hint=hint)
    needs_folder = datasets.entry(data.name).needs_folder
    if data.folder is not None and not needs_folder:
        raise MatrixError(
            f"{lines.place((*where, 'folder'))}: {data.name} lies in no folder of yours", hint="leave it out"
        )
    if needs_folder:
        try:
            datasets.require_folder(data.name, data.folder)
        except DatasetError as error:
            raise MatrixError(f"{lines.place(where)}: {error.message}", hint=error.hint) from None


def _check_device(spec: MatrixSpec, device: Device, where: Place, lines: Lines) -> None:
    from edgeprune import compiling, emulation
    from edgeprune.compiling import fpga

    place = lines.place(where)
    if fpga.target_of(device.name) is not None:
        _check_simulated(spec, device, place)
        return
    if emulation.target_of(device.name) is not None:
        if device.name not in emulation.devices() or device.address:
            hint = nearest_hint(device.name, emulation.devices())
            raise MatrixError(f"{place}: unknown device {device.name!r}", hint=hint)
        if not any(map(compiling.is_program, spec.runtimes)):
            raise MatrixError(
                f"{place}: {device.name} counts instructions of static programs, and no runtime makes one",
                hint="add native to the runtimes",
            )
        return
    if all(map(compiling.is_accelerator, spec.runtimes)):
        raise MatrixError(
            f"{place}: {device.name} has nothing to run: {', '.join(spec.runtimes)} runs on simulated devices alone",
            hint=f"a device of {', '.join(fpga.devices())}, or another runtime beside it",
        )
    try:
        transport.check(device, transport.names())
        if device.target:
            compiling.target(device.target)
    except UserError as error:
        raise MatrixError(f"{place}: {error.message}", hint=error.hint) from None


def _check_simulated(spec: MatrixSpec, device: Device, place: str) -> None:
    from edgeprune import compiling
    from edgeprune.compiling import fpga

    if device.name not in fpga.devices() or device.address:
        raise MatrixError(f"{place}: unknown device {device.name!r}", hint=nearest_hint(device.name, fpga.devices()))
    if not any(map(compiling.is_accelerator, spec.runtimes)):
        raise MatrixError(
            f"{place}: {device.name} counts cycles of accelerated networks, and no runtime makes one",
            hint="add fpga to the runtimes",
        )
    if 1 not in spec.batch:
        raise MatrixError(f"{place}: {device.name} takes one image at a time", hint="add 1 to the batch sizes")


def check_lists(spec: MatrixSpec, lines: Lines) -> None:
    """A name that stands twice would be measured twice; a matrix without cells would measure nothing."""
    lists: dict[str, Sequence[str | int]] = {
        "models": [model.label + (f" on {model.data.label}" if model.data else "") for model in spec.models],
        "variants": spec.variants,
        "runtimes": spec.runtimes,
        "devices": [device.name for device in spec.devices],
        "threads": spec.threads,
        "batch": spec.batch,
    }
    for key, values in lists.items():
        for number, value in enumerate(values):
            if value in values[:number]:
                raise MatrixError(f"{lines.place((key, number))}: {value!r} is there twice")
    if not spec.prune and "dense" not in spec.variants:
        raise MatrixError(
            f"{lines.place(('variants',))}: nothing to measure: masked and shrunk networks need `prune`",
            hint="add a recipe such as prune: [{method: l1, ratio: 0.5}], or the variant dense",
        )
