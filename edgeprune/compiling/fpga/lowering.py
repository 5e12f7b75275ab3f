"""From a layer and where its tensors lie to commands. Start with `Lowering.add`.

A tensor lies in memory, or stays in the core's buffers: in `a` for the next layer to read, in `r` to be added later or
stored. What lies in memory passes through rings of the buffers, which the commands of neighbouring tiles share.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from edgeprune.compiling.fpga.commands import Compute, Load, Output, Store
from edgeprune.compiling.fpga.geometry import PARAMETER_WORDS
from edgeprune.compiling.fpga.layers import Int8, Layer, parameters
from edgeprune.compiling.fpga.places import Ring, Tensor
from edgeprune.compiling.fpga.program import Program
from edgeprune.compiling.fpga.tiling import Chunk, Plan, Staging, input_rows, plan
from edgeprune.errors import CompileError


@dataclass
class Lowering:
    """Layers of one network, one after the other, into one program.

    Attributes:
        program: Where the commands go.
        a, r, w: The parts of the buffers that are not held by tensors: all, if not given.
        weights: What `memory` has to hold from `weights_at` on: packed weights of all layers, in order.
    """

    program: Program
    weights_at: int = 0
    a: Ring | None = None
    r: Ring | None = None
    w: Ring | None = None
    weights: list[Int8] = field(default_factory=list)
    _weights_bytes: int = 0

    def __post_init__(self) -> None:
        core = self.program.core
        self.a = self.a or Ring(0, core.a_words)
        self.r = self.r or Ring(0, core.r_words)
        self.w = self.w or Ring(0, core.w_words)

    def add(self, layer: Layer, source: Tensor, target: Tensor, skip: Tensor | None = None) -> Plan:
        """Commands of one layer.

        Args:
            layer: What to compute.
            source: What it reads, in memory or in `a`.
            target: Where the result goes: to memory, to `a`, to `r`, or to several of them.
            skip: What is added, in memory or in `r`; it may be the target's own place in `r`.

        Raises:
            CompileError: shapes do not fit each other, or the layer does not fit the core.
        """
        self._check(layer, source, target, skip)
        return _LayerLowering(self, layer, source, target, skip).emit()

    def _check(self, layer: Layer, source: Tensor, target: Tensor, skip: Tensor | None) -> None:
        made = (layer.out_channels, *layer.picture(source.rows, source.columns))
        if source.channels != layer.in_channels or (target.channels, target.rows, target.columns) != made:
            raise CompileError(f"a layer {layer.in_channels} -> {made} does not fit {source} -> {target}")
        if (skip is None) != (layer.addition is None):
            raise CompileError("a layer with an addition needs what is to be added, another does not")
        if skip is not None and (skip.channels, skip.rows, skip.columns) != made:
            raise CompileError(f"{skip} cannot be added to {made}")
        if source.memory is None and source.a is None:
            raise CompileError("a layer reads from memory or from the activation buffer")
        if skip is not None and skip.memory is None and skip.r is None:
            raise CompileError("what is added comes from memory or from the result buffer")
        if target.memory is None and target.a is None and target.r is None:
            raise CompileError("a layer's result goes nowhere")

    def place_weights(self, packed: Int8) -> int:
        """Append packed weights; their address in memory."""
        self.weights.append(packed)
        self._weights_bytes += packed.size
        return self.weights_at + self._weights_bytes - packed.size


@dataclass(frozen=True)
class _Rows:
    """Rows `low` to `high` of some input planes."""

    piece: tuple[int, int]
    low: int
    high: int

    def words(self, columns: int) -> int:
        return (self.piece[1] - self.piece[0]) * (self.high - self.low) * columns


class _LayerLowering:
    def __init__(self, lowering: Lowering, layer: Layer, source: Tensor, target: Tensor, skip: Tensor | None) -> None:
        assert lowering.a is not None
        assert lowering.r is not None
        assert lowering.w is not None
        self.program, self.core = lowering.program, lowering.program.core
        self.a, self.r, self.w = lowering.a, lowering.r, lowering.w
        self.layer, self.source, self.target, self.skip = layer, source, target, skip
        passing = [target.memory is not None and target.r is None, skip is not None and skip.r is None]
        staging = Staging(
            None if source.a is not None else self.a.words,
            self.r.words // (2 * sum(passing)) if any(passing) else None,
            self.w.words,
        )
        self.plan = plan(self.core, layer, source.rows, source.columns, staging)
        self.blocks = {
            (plane, chunk): self._pack(plane, chunk, chunk is chunks[-1])
            for plane, chunks in enumerate(self.plan.chunks)
            for chunk in chunks
        }
        self.addresses = {key: lowering.place_weights(block) for key, block in self.blocks.items()}
        self.resident: dict[tuple[int, Chunk], int] = {}
        self.inputs = self._inputs()
        self.used, self.loaded = -1, -1  # of the inputs, the one that is computed on and the last that was loaded
        sizes = [rows.words(source.columns) for rows in self.inputs]
        self.halves = 2 if 2 * max(sizes, default=0) <= self.a.words else 1

    def emit(self) -> Plan:
        """All commands, band after band."""
        total = sum(block.size for block in self.blocks.values()) // self.core.n
        if len(self.plan.bands) > 1 and total <= self.w.words // 2:
            self.resident = self._load_all(total)
        for band in self.plan.bands:
            for plane, chunks in enumerate(self.plan.chunks):
                self._plane(band, plane, chunks)
        return self.plan

    def _inputs(self) -> list[_Rows]:
        """What is loaded of the input, in the order in which it is used."""
        if self.source.a is not None:
            return []
        found = []
        for band in self.plan.bands:
            low, high = input_rows(self.layer, self.source.rows, band)
            for chunks in self.plan.chunks:
                found += [_Rows(chunk.piece, low, high) for chunk in chunks]
        return [rows for rows, _ in itertools.groupby(found)]

    def _plane(self, band: tuple[int, int], plane: int, chunks: tuple[Chunk, ...]) -> None:
        """One output plane of a band."""
        columns = self.target.columns
        pixels = band[1] * columns
        offset = plane * self.target.rows * columns + band[0] * columns
        weights_first = self._weights(plane, chunks[0])
        skip = self._skip(offset, pixels)
        for chunk in chunks:
            weights = weights_first if chunk is chunks[0] else self._weights(plane, chunk)
            output = self._output(offset, pixels, skip) if chunk is chunks[-1] else None
            self.program.add(self._compute(band, chunk, weights, chunk is chunks[0], output))
            self._load_ahead()
        if self.target.memory is not None:
            assert output is not None
            assert output.to_r is not None
            self.program.add(Store("r", self.target.memory + offset * self.core.n, output.to_r, pixels))

    def _compute(
        self, band: tuple[int, int], chunk: Chunk, weights: int, begins: bool, output: Output | None
    ) -> Compute:
        layer, source = self.layer, self.source
        first_row = band[0] * layer.stride[0] - layer.padding[0] + chunk.kernel_rows[0] * layer.dilation[0]
        if source.a is not None:
            address, row, rows = source.a, 0, source.rows
            address += chunk.planes[0] * rows * source.columns
        else:
            row, end = input_rows(layer, source.rows, band)
            rows = end - row
            address = self._input(_Rows(chunk.piece, row, end))
            address += (chunk.planes[0] - chunk.piece[0]) * rows * source.columns
        return Compute(
            address, source.columns, rows, source.columns, band[1], self.target.columns, weights,
            plane_pitch=rows * source.columns, planes=chunk.planes[1] - chunk.planes[0],
            kernel=(chunk.kernel_rows[1] - chunk.kernel_rows[0], layer.weights.shape[3]),
            stride=layer.stride, dilation=layer.dilation, first_row=first_row - row, first_column=-layer.padding[1],
            padding=layer.padding_value, diagonal=layer.is_channelwise, maximum=layer.maximum, begins=begins,
            output=output,
        )  # fmt: skip

    def _input(self, rows: _Rows) -> int:
        """Where in the activation buffer rows of some input planes lie."""
        if self.used < 0 or self.inputs[self.used] != rows:
            self.used += 1
            assert self.inputs[self.used] == rows
            if self.loaded < self.used:
                self._load_input(self.used)
        return self._input_address(self.used)

    def _load_ahead(self) -> None:
        """Load the next rows into the other half of the buffer while these are computed on."""
        if self.halves == 2 and self.loaded == self.used and self.loaded + 1 < len(self.inputs):
            self._load_input(self.used + 1)

    def _load_input(self, index: int) -> None:
        rows, source, n = self.inputs[index], self.source, self.core.n
        assert source.memory is not None
        plane_bytes = source.rows * source.columns * n
        memory = source.memory + rows.piece[0] * plane_bytes + rows.low * source.columns * n
        self.program.add(Load(
            "a", memory, self._input_address(index), (rows.high - rows.low) * source.columns,
            planes=rows.piece[1] - rows.piece[0], plane_pitch=plane_bytes,
        ))  # fmt: skip
        self.loaded = index

    def _input_address(self, index: int) -> int:
        return self.a.start + index % self.halves * (self.a.words // 2)

    def _weights(self, plane: int, chunk: Chunk) -> int:
        if (plane, chunk) in self.resident:
            return self.resident[plane, chunk]
        words = self.blocks[plane, chunk].size // self.core.n
        address = self.w.take(words)
        self.program.add(Load("w", self.addresses[plane, chunk], address, words))
        return address

    def _load_all(self, total: int) -> dict[tuple[int, Chunk], int]:
        """All weights at once, for all bands."""
        address = self.w.take(total)
        first = next(iter(self.addresses.values()))
        self.program.add(Load("w", first, address, total))
        return {key: address + (where - first) // self.core.n for key, where in self.addresses.items()}

    def _skip(self, offset: int, pixels: int) -> int | None:
        if self.skip is None:
            return None
        if self.skip.r is not None:
            return self.skip.r + offset
        assert self.skip.memory is not None
        address = self.r.take(pixels)
        self.program.add(Load("r", self.skip.memory + offset * self.core.n, address, pixels))
        return address

    def _output(self, offset: int, pixels: int, skip: int | None) -> Output:
        layer, target = self.layer, self.target
        to_r = None if target.r is None else target.r + offset
        if to_r is None and target.memory is not None:
            to_r = self.r.take(pixels)
        to_a = None if target.a is None else target.a + offset
        added = layer.addition
        if added is None:
            return Output(to_a, to_r, zero_main=layer.zero, zero_sum=layer.zero, low=layer.low, high=layer.high)
        return Output(
            to_a, to_r, skip, layer.zero, added.zero_skip, added.zero_sum, added.scale_main, added.scale_skip,
            added.sum_shift, layer.low, layer.high,
        )  # fmt: skip

    def _pack(self, plane: int, chunk: Chunk, finishes: bool) -> Int8:
        """The words of one compute: the weights of its passes, then the parameters if it finishes the sums."""
        n, rows = self.core.n, slice(*chunk.kernel_rows)
        if self.layer.is_channelwise:
            channels = self.layer.weights[plane * n : (plane + 1) * n, 0, rows]
            block = np.zeros((*channels.shape[1:], n), np.int8)
            block[..., : len(channels)] = channels.transpose(1, 2, 0)
            parts = [block.reshape(-1)]
        else:
            parts = [self.layer.block(n, plane, k)[rows].reshape(-1) for k in range(*chunk.planes)]
        if finishes:
            parts.append(parameters(self.layer, n, plane))
            assert parts[-1].size == PARAMETER_WORDS * n
        return np.ascontiguousarray(np.concatenate(parts))
