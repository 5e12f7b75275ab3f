"""Kernels in the form that TVM's C code generator writes rightly: plain numbers, and calls for what it gets wrong.

A store of a vector becomes a loop over its lanes, which C compilers make vectors of again, or one store a lane where a
constant shuffle settles which number goes where. Start with `in_plain_c`.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from edgeprune.compiling.tvm.gather import loop, sequence


def in_plain_c(module: tvm.IRModule) -> tvm.IRModule:
    """The same functions without hand-written vectors; TVM itself undoes those that a schedule made.

    Maxima and minima become calls of functions in `devices/native/tvm_types.h`: TVM's generator keeps the operands of
    one for the next that is spelt alike, also when memory has changed in between.
    """
    calls = [(tirx.Max, _extreme), (tirx.Min, _extreme), (tvm.ir.Call, _absolute)]
    functions = {
        name: structural_map(structural_map(function, (tirx.BufferStore, _stored)), calls)
        if isinstance(function, tirx.PrimFunc)
        else function
        for name, function in module.functions_items()
    }
    return tvm.IRModule(functions, attrs=module.attrs)


def _extreme(value: Any) -> Any:
    kind = value.ty.dtype
    name = "kernel_max" if isinstance(value, tirx.Max) else "kernel_min"
    return tirx.call_pure_extern(kind, f"{name}_{kind}", value.a, value.b)


def _absolute(call: Any) -> Any:
    """TVM has no C for its absolute value of a floating-point number."""
    if getattr(call.op, "name", "") != "tirx.fabs":
        return call
    kind = call.ty.dtype
    return tirx.call_pure_extern(kind, "fabsf" if str(kind) == "float32" else "fabs", *call.args)


def _stored(store: tirx.BufferStore) -> tirx.Stmt:
    """A store of a vector, number by number; no number is made of one that is stored before it."""
    lanes = _lanes(store.value)
    if lanes == 1:
        return store

    def one(lane: Any) -> tirx.Stmt:
        return tirx.BufferStore(
            store.buffer, _number(store.value, lane), [_number(part, lane) for part in store.indices]
        )

    if _shuffles(store.value):
        return sequence([one(lane) for lane in range(lanes)])
    lane = tirx.Var("lane", "int32")
    return loop(lane, lanes, one(lane))


def _number(value: Any, lane: Any) -> Any:
    """One lane of a vector, or a number itself; behind a shuffle, the lane is known."""
    if isinstance(value, tirx.Broadcast):
        return value.value
    if isinstance(value, tirx.Ramp):
        return value.base + value.stride * lane
    if isinstance(value, tvm.ir.TensorLoad):
        return tirx.BufferLoad(value.source, [_number(part, lane) for part in value.indices])
    if isinstance(value, tirx.Shuffle):
        return _picked(value, int(value.indices[lane]))
    if _lanes(value) == 1:
        return value
    if isinstance(value, tirx.expr.BinaryOpExpr):
        return type(value)(_number(value.a, lane), _number(value.b, lane))
    if isinstance(value, tirx.Cast):
        return tirx.Cast(_scalar(value), _number(value.value, lane))
    if isinstance(value, tvm.ir.Call):
        return tirx.call_intrin(_scalar(value), value.op, *[_number(part, lane) for part in value.args])
    raise TypeError(f"no numbers for a vector made by {type(value).__name__}")


def _scalar(value: Any) -> str:
    """The type of one lane."""
    return str(value.ty.dtype).partition("x")[0]


def _picked(shuffle: tirx.Shuffle, lane: int) -> Any:
    """A lane of a shuffle's vectors put one after the other."""
    vectors = iter(shuffle.vectors)
    vector = next(vectors)
    while lane >= _lanes(vector):
        lane -= _lanes(vector)
        vector = next(vectors)
    return _number(vector, lane)


def _shuffles(value: Any) -> bool:
    if isinstance(value, tirx.expr.BinaryOpExpr):
        return _shuffles(value.a) or _shuffles(value.b)
    if isinstance(value, tirx.Cast):
        return _shuffles(value.value)
    if isinstance(value, tvm.ir.Call):
        return any(_shuffles(part) for part in value.args)
    return isinstance(value, tirx.Shuffle)


def _lanes(value: Any) -> int:
    return int(value.ty.dtype.lanes)
