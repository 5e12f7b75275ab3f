"""For which sizes of its inputs a traced network holds, checked whenever it runs. Start with `HeldSizes`.

A forward that decides by sizes (`if x.shape[-1] > 8`) is traced along one way. The network then refuses the sizes that
would have gone another way: it never computes something else than the model it was made from.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._sympy.printers import PythonPrinter

from edgeprune.errors import ModelError

OPEN_FROM = 2
"""The least size that torch.export tells apart from a size of one, which it takes for a constant."""

_ALLOWED = (
    ast.Expression, ast.Compare, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Name, ast.Load, ast.cmpop, ast.operator,
    ast.boolop, ast.unaryop,
)  # fmt: skip

_TORCHS_QUESTIONS = ("contiguous", "channels_last", "stride", "shape_check")
"""Parts of the names of torch's functions that lay tensors out or refuse them."""


class HeldSizes(nn.Module):
    """Refuses inputs of sizes that a network was not traced for.

    Args:
        shapes: For each input its sizes: a number where it is fixed, else a name, the same for equal sizes.
        conditions: What must hold of the names, such as "s1 % 2 == 0": comparisons of whole numbers alone.

    Raises:
        ModelError: A condition is no comparison of sizes, or is of a name that no shape has.

    Example:
        >>> HeldSizes([["n", 3, "h"]], ["h > 8"])(torch.zeros(1, 3, 8))
        Traceback (most recent call last):
        ...
        edgeprune.errors.ModelError: the network holds for inputs [n, 3, h] with h > 8, not for [1, 3, 8]
    """

    _is_impure = True
    """Gives nothing, and stays in a graph all the same."""

    def __init__(self, shapes: Sequence[Sequence[int | str]], conditions: Sequence[str]) -> None:
        super().__init__()
        self.shapes = [list(shape) for shape in shapes]
        self.conditions = list(conditions)
        named = {size for shape in self.shapes for size in shape if isinstance(size, str)}
        for condition in self.conditions:
            _compiled(condition)
            if not _names(condition) <= named | {"max", "min"}:
                raise ModelError(f"{condition!r} is of no size of an input", hint="use a file that edgeprune wrote")

    @property
    def holds_for_all(self) -> bool:
        """Whether there is nothing to check but the number of channels, which the layers check themselves."""
        names = [size for shape in self.shapes for size in shape if isinstance(size, str)]
        fixed = any(isinstance(shape[axis], int) for shape in self.shapes for axis in range(len(shape)) if axis != 1)
        return not self.conditions and not fixed and len(set(names)) == len(names)

    def forward(self, *inputs: Tensor) -> None:
        """Raise ModelError if a size is not one that the network was traced for."""
        sizes: dict[str, int] = {}
        fits = True
        for shape, tensor in zip(self.shapes, inputs, strict=True):
            fits = fits and len(shape) == tensor.dim()
            for wanted, given in zip(shape, tensor.shape, strict=False):
                fits = fits and (sizes.setdefault(wanted, given) if isinstance(wanted, str) else wanted) == given
        if not fits or not all(_holds(condition, sizes) for condition in self.conditions):
            given_shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs)
            raise ModelError(
                f"the network holds for inputs {self.extra_repr()}, not for {given_shapes}",
                hint="shrink the masked network again with example inputs of these sizes",
            )

    def extra_repr(self) -> str:
        """The sizes and the conditions."""
        shapes = ", ".join("[" + ", ".join(map(str, shape)) + "]" for shape in self.shapes)
        return shapes + (f" with {', '.join(self.conditions)}" if self.conditions else "")


def held_sizes(program: torch.export.ExportedProgram, inputs: Sequence[Tensor], strictly: bool) -> HeldSizes:
    """The sizes that torch.export settled on the way that it took through forward.

    Args:
        program: The exported program.
        inputs: The tensors that it was exported with, in the order of the program's own inputs.
        strictly: Hold what torch itself asked of the sizes, too, to lay tensors out in memory and to refuse images that
            are too small. It asks whether sizes differ from one, and forward may have asked the same.
    """
    taken = set(program.graph_signature.user_inputs)
    given = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in taken]
    names: dict[Any, str] = {}
    shapes = []
    for shape, example in zip(given, inputs, strict=True):
        free = [_symbol(size) for size in shape]
        for symbol in free:
            if symbol is not None:
                names.setdefault(symbol, f"s{len(names)}")
        # a size made of others (twice some number) is kept as it was
        shapes.append([int(e) if s is None else names[s] for s, e in zip(free, example.shape, strict=True)])
    conditions: dict[str, None] = {}
    for symbol, name in names.items():
        limits = program.range_constraints.get(symbol)
        if limits is not None and limits.lower > OPEN_FROM:
            conditions[f"{name} >= {limits.lower}"] = None
        if limits is not None and "oo" not in str(limits.upper):
            conditions[f"{name} <= {limits.upper}"] = None
    fixed: set[str] = set()
    for guard in _guards(given, strictly):
        text = PythonPrinter().doprint(guard.xreplace({s: type(s)(name, integer=True) for s, name in names.items()}))
        asked = {names[symbol] for symbol in guard.free_symbols if symbol in names}
        if len(asked) == len(guard.free_symbols) and _is_understood(text):
            conditions[text] = None
        else:
            fixed |= asked
    frozen = [
        [e if size in fixed else size for size, e in zip(shape, example.shape, strict=True)]
        for shape, example in zip(shapes, inputs, strict=True)
    ]
    return HeldSizes(frozen, [condition for condition in conditions if not fixed & _names(condition)])


def _symbol(size: Any) -> Any:
    expression = None if isinstance(size, int) else size.node.expr
    return expression if getattr(expression, "is_Symbol", False) else None


def _guards(shapes: Sequence[torch.Size], strictly: bool) -> list[Any]:
    """What was found true of the sizes, as sympy expressions; plain limits stand in the program's ranges already."""
    open_sizes: list[Any] = [size for shape in shapes for size in shape if not isinstance(size, int)]
    if not open_sizes:
        return []
    environment = open_sizes[0].node.shape_env
    found = [guard.expr for guard in environment.guards if strictly or not _is_torchs_own(guard)]
    settled = [environment.simplify(guard.xreplace(environment.replacements)) for guard in found]
    return [one for one in settled if one.free_symbols and not _is_plain_limit(one)]


def _is_torchs_own(guard: Any) -> bool:
    frame = guard.sloc.framework_loc
    return any(word in getattr(frame, "name", "") for word in _TORCHS_QUESTIONS)


def _is_plain_limit(guard: Any) -> bool:
    inequality = guard.func.__name__ in ("StrictGreaterThan", "GreaterThan", "StrictLessThan", "LessThan")
    return inequality and guard.lhs.is_Symbol and guard.rhs.is_number


def _is_understood(condition: str) -> bool:
    try:
        _compiled(condition)
    except ModelError:
        return False
    return True


def _names(condition: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(condition)) if isinstance(node, ast.Name)}


@functools.lru_cache(maxsize=1024)
def _compiled(condition: str) -> CodeType:
    """A comparison of whole numbers as code; nothing else is let through, since it may come from a file."""
    try:
        tree = ast.parse(condition, mode="eval")
    except SyntaxError as error:
        raise ModelError(f"{condition!r} is no condition on sizes", hint="use a file that edgeprune wrote") from error
    for node in ast.walk(tree):
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min")
        number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        power = isinstance(node, ast.Pow | ast.LShift)
        if power or not (call or number or isinstance(node, _ALLOWED)):
            raise ModelError(f"{condition!r} is no condition on sizes", hint="use a file that edgeprune wrote")
    return compile(tree, "<sizes>", "eval")


def _holds(condition: str, sizes: Mapping[str, int]) -> bool:
    names = {"__builtins__": {}, "max": max, "min": min} | dict(sizes)
    return bool(eval(_compiled(condition), names))  # noqa: S307 - only comparisons of numbers are compiled
