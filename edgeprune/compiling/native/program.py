"""A network as a static program has it: kernels called one after the other on tensors with fixed places.

`read_program` walks the planned Relax function: TVM's memory plan gives each tensor a place in one arena, constants get
a place in one block of weights, and what is left are calls of kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from edgeprune.errors import CompileError

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector; every tensor begins on one."""


@dataclass(frozen=True)
class Place:
    """Where a tensor's numbers lie.

    Attributes:
        block: "input0", "input1", ... or "arena" or "weights".
        offset: Bytes from the block's start.
    """

    block: str
    offset: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor with a fixed place.

    Attributes:
        place: Where it lies.
        shape: Its dimensions.
        dtype: Name of its type: "float32", "int8", "int64", "bool", ...
    """

    place: Place
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * item_bytes(self.dtype)


@dataclass(frozen=True)
class Call:
    """One kernel and the tensors it reads and writes."""

    kernel: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Program:
    """A whole network; what its kernels compute is in the object code beside it."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    arena_bytes: int
    weights: bytes


def item_bytes(dtype: str) -> int:
    """Bytes of one number."""
    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


def read_program(module: tvm.IRModule) -> Program:
    """The program that the function `main` of a planned module stands for.

    Raises:
        CompileError: it does something else than calling kernels.
    """
    main, walk = module["main"], _Walk()
    inputs = tuple(walk.enter(i, variable) for i, variable in enumerate(main.params))
    for block in main.body.blocks:
        for binding in block.bindings:
            walk.values[binding.var] = walk.value(binding.value)
    result = walk.value(main.body.body)
    outputs = result if isinstance(result, tuple) else (result,)
    return Program(inputs, outputs, tuple(walk.calls), walk.arena_bytes, bytes(walk.weights))


def kernels(module: tvm.IRModule) -> tvm.IRModule:
    """The kernels of a module alone, each with its name as the symbol."""
    found = {
        name: kernel.with_attr("global_symbol", name.name_hint)
        for name, kernel in module.functions.items()
        if isinstance(kernel, tirx.PrimFunc)
    }
    return tvm.IRModule(found)


@dataclass
class _Walk:
    """The values of the variables met so far: tensors, tuples of them, or offsets of storage."""

    values: dict[Any, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    arena_bytes: int = 0
    weights: bytearray = field(default_factory=bytearray)
    _constants: dict[Any, Place] = field(default_factory=dict)

    def enter(self, number: int, variable: relax.Var) -> Tensor:
        """The network's input of that number."""
        tensor = Tensor(Place(f"input{number}"), _shape(variable.ty.shape), str(variable.ty.dtype))
        self.values[variable] = tensor
        return tensor

    def value(self, expression: Any) -> Any:
        """What an expression stands for."""
        if isinstance(expression, relax.Var):
            return self.values[expression]
        if isinstance(expression, tvm.ir.GenericConst):
            return self._constant(expression.value.numpy())
        if isinstance(expression, relax.Tuple):
            return tuple(self.value(part) for part in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return self.value(expression.tuple_value)[expression.index]
        if not isinstance(expression, relax.Call):
            raise _unknown(type(expression).__name__)
        if isinstance(expression.op, tvm.ir.GlobalVar):
            given = [self.value(argument) for argument in expression.args]
            tensors = tuple(tensor for tensor in given if isinstance(tensor, Tensor))
            self.calls.append(Call(expression.op.name_hint, tensors))
            return ()
        return self._builtin(expression)

    def _builtin(self, call: relax.Call) -> Any:
        """TVM's own operations on storage."""
        name, arguments = call.op.name, call.args
        if name == "relax.memory.alloc_storage":
            return self._reserve(int(arguments[0].values[0]))
        if name == "relax.memory.alloc_tensor":
            offset = self.value(arguments[0]) + int(getattr(arguments[1], "value", arguments[1]))
            return Tensor(Place("arena", offset), _shape(call.ty.shape), str(call.ty.dtype))
        if name == "relax.builtin.alloc_tensor":
            tensor = Tensor(Place("arena"), _shape(call.ty.shape), str(call.ty.dtype))
            return Tensor(Place("arena", self._reserve(tensor.bytes)), tensor.shape, tensor.dtype)
        if name in ("relax.reshape", "relax.memory.view"):
            tensor = self.value(arguments[0])
            return Tensor(tensor.place, _shape(call.ty.shape), tensor.dtype)
        if name in ("relax.memory.kill_storage", "relax.memory.kill_tensor"):
            return ()
        raise _unknown(name)

    def _reserve(self, size: int) -> int:
        start = self.arena_bytes
        self.arena_bytes += -(-size // ALIGNMENT) * ALIGNMENT
        return start

    def _constant(self, array: Any) -> Tensor:
        numbers = np.ascontiguousarray(array)
        key = (numbers.dtype.str, numbers.tobytes())
        if key not in self._constants:
            self.weights += bytes(-len(self.weights) % ALIGNMENT)
            self._constants[key] = Place("weights", len(self.weights))
            self.weights += key[1]
        return Tensor(self._constants[key], tuple(numbers.shape), numbers.dtype.name)


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in shape)


def _unknown(what: str) -> CompileError:
    return CompileError(
        f"a static program can not do {what}",
        hint="use the runtime tvm for this network, and report it",
    )
