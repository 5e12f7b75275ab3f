"""`edgeprune shrink MODEL --weights FILE -o OUT.onnx`: a user's own masked network, really shrunk.

Beside OUT.onnx it writes OUT.safetensors and OUT.json, which `edgeprune.load_shrunk` makes the network of again without
its code, and OUT.pt, the plain state dict.
"""

from __future__ import annotations

import argparse
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ModelError, StorageError, TraceError, UnknownNameError, UserError, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.shrinking import Shrunk

_DEVICES = ("cpu", "cuda")
_OWN_SHAPE = (3, 32, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "model", metavar="MODEL", help="a name of `edgeprune models`, or package.module:callable (this runs your code)"
    )
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, required=True, help="masked weights: .safetensors, .pt or .pth"
    )
    parser.add_argument(
        "-o", "--out", metavar="OUT.onnx", type=Path, required=True,
        help="the shrunk network; OUT.pt, OUT.safetensors and OUT.json come beside it",
    )  # fmt: skip
    parser.add_argument(
        "--input-shape", metavar="C,H,W", type=_shape, action="append", default=[],
        help="of one image (default: the model's, else 3,32,32); once for each input of a model with several",
    )  # fmt: skip
    parser.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], type=_option, help="for the model's builder"
    )
    parser.add_argument(
        "--additions", metavar="FORM", default="auto", help="how residual sums run: auto (default) or gather"
    )
    parser.add_argument(
        "--constants", metavar="HOW", default="exact",
        help="what removed filters leave behind: exact (default), or drop, as the paper does, at a loss that is told",
    )  # fmt: skip
    parser.add_argument(
        "--method", metavar="NAME", default="connectivity",
        help="how needed channels are found: connectivity (default), or gradient, the paper's algorithm",
    )  # fmt: skip
    parser.add_argument(
        "--align", metavar="N", type=_width, help="8 or 16: keep filters where rounding up to the vector width is free"
    )
    parser.add_argument(
        "--columns", metavar="HOW", default="auto",
        help="kernel columns that are zero go where that is faster: auto (default); always: gather; never: keep",
    )  # fmt: skip
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="where it is shrunk: cpu (default) or cuda")


def carry_out(given: argparse.Namespace) -> int:
    """Load, shrink, check the numbers, export, and print what went."""
    shapes = _checked(given)  # before torch is loaded

    import torch

    from edgeprune import shrinking, training

    if given.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "no CUDA device is usable here", hint="leave --device out; `python -m torch.utils.collect_env` says why"
        )
    masked = _build(given, shapes)
    training.load_weights(masked, given.weights)
    masked.eval().to(given.device)
    generator = torch.Generator().manual_seed(0)
    example = tuple(torch.randn(1, *shape, generator=generator).to(given.device) for shape in shapes)
    options = {name: getattr(given, name) for name in ("additions", "constants", "method", "align", "columns")}
    try:
        shrunk = shrinking.shrink(masked, example, **options)
    except (TraceError, WeightsError):
        raise
    except ModelError as error:
        hint = "name the shape that the model takes, without the batch, with --input-shape"
        raise ModelError(error.message, hint=hint) from error
    _report(given, masked, shrunk, example)
    return 0


def _report(given: argparse.Namespace, masked: nn.Module, shrunk: Shrunk, example: tuple[torch.Tensor, ...]) -> None:
    """Write the files, and print the table, the sizes and the files."""
    from edgeprune import counting, exporting
    from edgeprune.cli.layer_table import table

    print("\n".join(table(shrunk.report)))
    masked, example = masked.cpu(), tuple(one.cpu() for one in example)
    shrunk.model.cpu()
    files = _save(shrunk, given.out)
    before, after = counting.count(masked, example), counting.count(shrunk.model, example)
    print(f"parameters {before.params:,} -> {after.params:,}, MACs {before.macs:,} -> {after.macs:,}")
    print(f"wrote {', '.join(str(file) for file in files)}", flush=True)
    exporting.export_onnx(shrunk.model, example, given.out)
    # dropped constants differ from the masked network on purpose; the report has said by how much
    exact = given.constants == "exact"
    difference = exporting.check_parity(masked if exact else shrunk.model, given.out, example)
    whose = "masked" if exact else "shrunk"
    print(f"{given.out}: differs from the {whose} network by {difference:.1e} of its largest output")
    shapes = " and ".join(",".join(map(str, one.shape)) for one in example)
    guessed = ":" in given.model and not given.input_shape
    print(f"{given.out}: made for {shapes}" + (", the default; --input-shape names another" if guessed else ""))


def _save(shrunk: Shrunk, out: Path) -> list[Path]:
    """The state dict and the description; parts that need the user's code are told."""
    import torch

    from edgeprune.storage import write_whole

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        saved = shrunk.save(out.with_suffix(""))
    for one in caught:
        print(one.message)
    content = io.BytesIO()
    torch.save(shrunk.model.state_dict(), content)
    return [write_whole(out.with_suffix(".pt"), content.getvalue()), saved.state, saved.description]


def _checked(given: argparse.Namespace) -> list[tuple[int, ...]]:
    """The shape of each input, once every argument is known to make sense."""
    from edgeprune import models

    own = ":" in given.model
    entry = None if own else models.entry(given.model)
    if given.device not in _DEVICES:
        raise UnknownNameError("device", given.device, _DEVICES)
    if not given.weights.is_file():
        raise UserError(f"no weights file {str(given.weights)!r}", hint="give the masked network's state dict")
    _require_place(given.out, given.weights)
    shapes: list[tuple[int, ...]] = given.input_shape or [entry.input_shape if entry else _OWN_SHAPE]
    if not own and (len(shapes) != 1 or len(shapes[0]) != len(_OWN_SHAPE)):
        raise UserError(f"{given.model} takes one image", hint="give --input-shape C,H,W once, such as 3,32,32")
    return shapes


def _require_place(out: Path, weights: Path) -> None:
    """Refuse a place that can not be written before any work is done for it."""
    if out.suffix != ".onnx" or out.is_dir():
        raise UserError(f"-o {out} names no .onnx file", hint="give a file's name, such as -o shrunk.onnx")
    if weights.resolve() in [out.with_suffix(suffix).resolve() for suffix in (".pt", ".safetensors")]:
        raise UserError(
            f"-o {out} would overwrite the masked weights in {weights}",
            hint="give another name, such as -o shrunk.onnx",
        )
    folder = next(one for one in out.absolute().parents if one.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StorageError(f"{folder} can not be written", hint="choose a place that you may write")


def _build(given: argparse.Namespace, shapes: list[tuple[int, ...]]) -> nn.Module:
    from edgeprune import models

    options: dict[str, Any] = dict(given.option)
    if ":" in given.model:
        return models.load(given.model, **options)
    classes = options.pop("num_classes", 10)
    return models.build(given.model, classes, shapes[0][0], **options)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not C,H,W, such as 3,32,32: sizes are fixed numbers, without the batch"
        )
    return tuple(int(part) for part in parts)


def _width(text: str) -> int:
    if not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no width of a vector: 8 or 16 channels")
    return int(text)


def _option(text: str) -> tuple[str, str | int | float | bool]:
    key, sign, value = text.partition("=")
    if not sign or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as shortcut=pad")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, {"true": True, "false": False}.get(value.lower(), value)
