"""`edgeprune shrink MODEL --weights FILE -o OUT.onnx`: a user's own masked network, really shrunk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "model", metavar="MODEL", help="a name of `edgeprune models`, or package.module:callable (this runs your code)"
    )
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, required=True, help="masked weights: .safetensors, .pt or .pth"
    )
    parser.add_argument("-o", "--out", metavar="OUT.onnx", type=Path, required=True, help="the shrunk network")
    parser.add_argument(
        "--input-shape", metavar="C,H,W", type=_shape, help="of one image (default: the model's, else 3,32,32)"
    )
    parser.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], type=_option, help="for the model's builder"
    )


def carry_out(given: argparse.Namespace) -> int:
    """Load, shrink, check the numbers, export, and print what went."""
    from edgeprune import models

    own = ":" in given.model
    # both checked before torch is loaded
    shape = given.input_shape or ((3, 32, 32) if own else models.entry(given.model).input_shape)
    if not given.weights.is_file():
        raise UserError(f"no weights file {str(given.weights)!r}", hint="give the masked network's state dict")

    import torch

    from edgeprune import counting, exporting, shrinking, training

    options = dict(given.option)
    masked = _build(given.model, own, shape, options)
    training.load_weights(masked, given.weights)
    masked.eval()
    example = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    shrunk = shrinking.shrink(masked, example)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    exporting.export_onnx(shrunk.model, example, given.out)
    difference = exporting.check_parity(masked, given.out, example)
    before, after = counting.count(masked, example), counting.count(shrunk.model, example)
    print(shrunk.report)
    print(f"parameters {before.params:,} -> {after.params:,}, MACs {before.macs:,} -> {after.macs:,}")
    print(f"{given.out}: differs from the masked network by {difference:.1e} of its largest output")
    return 0


def _build(name: str, own: bool, shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    from edgeprune import models

    if own:
        return models.load(name, **options)
    classes = options.pop("num_classes", 10)
    return models.build(name, classes, shape[0], **options)


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not C,H,W, such as 3,32,32")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


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
