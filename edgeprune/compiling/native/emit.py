"""A program as C: tables of ports, tensors and kernel calls, which `devices/native/` runs. Start with `model_source`.

Everything is initialised by the compiler, so the program starts without work. Weights lie in a file of their own, which
the assembler takes in (`weights_source`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgeprune.compiling.native.program import ALIGNMENT, Place, Program, Tensor

_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}  # DLPack's type codes
WEIGHTS_FILE = "weights.bin"


@dataclass(frozen=True)
class Labels:
    """What a program says of itself.

    Attributes:
        name: The network's name.
        target: The target's name.
        compiler: What made it, with versions.
        features: Instruction sets that it needs, as `devices/native/features.c` names them.
        input_names: A name for each input.
        output_names: A name for each output.
        max_threads: Threads that its kernels can share.
        workspace_bytes: The most that a kernel borrows on one thread.
    """

    name: str
    target: str
    compiler: str
    features: tuple[str, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    max_threads: int
    workspace_bytes: int


def model_source(program: Program, labels: Labels) -> str:
    """The C source of a program's tables; it includes `model.h` of `devices/native/`."""
    tensors = _Tensors()
    rows = [
        (call.kernel, [tensors.number(tensor) for tensor in call.tensors])
        for call in program.calls
    ]  # fmt: skip
    lines = [
        "/* Written by edgeprune: the tables of one compiled network. */",
        '#include "model.h"',
        "",
        "extern const unsigned char edgeprune_weights[];" if program.weights else "",
        _block("arena", program.arena_bytes),
        *(_block(tensor.place.block, tensor.bytes) for tensor in program.inputs),
        "",
        *tensors.source(),
        *(f"extern kernel __tvm_ffi_{kernel};" for kernel in dict.fromkeys(kernel for kernel, _ in rows)),
        *(_arguments(number, numbers) for number, (_, numbers) in enumerate(rows)),
        "static const struct call calls[] = {",
        *(
            f'    {{__tvm_ffi_{kernel}, arguments_{number}, {len(numbers)}, "{kernel}"}},'
            for number, (kernel, numbers) in enumerate(rows)
        ),
        "};" if rows else "    {0}};",
        *_ports("inputs", program.inputs, labels.input_names),
        *_ports("outputs", program.outputs, labels.output_names),
        "const struct model model = {",
        f"    .name = {_text(labels.name)}, .target = {_text(labels.target)}, .compiler = {_text(labels.compiler)},",
        f"    .features = {_text(' '.join(labels.features))},",
        "    .inputs = inputs, .outputs = outputs,",
        f"    .input_count = {len(program.inputs)}, .output_count = {len(program.outputs)},",
        f"    .calls = calls, .call_count = {len(rows)}, .max_threads = {labels.max_threads},",
        f"    .weights_bytes = {len(program.weights)}u, .arena_bytes = {program.arena_bytes}u,",
        f"    .workspace_bytes = {labels.workspace_bytes}u,",
        "};",
        "",
    ]
    return "\n".join(lines)


def weights_source() -> str:
    """Assembler that puts the file of weights into the program, read-only."""
    return "\n".join(
        [
            '    .section .rodata.edgeprune_weights, "a"',
            f"    .balign {ALIGNMENT}",
            "    .globl edgeprune_weights",
            "edgeprune_weights:",
            f'    .incbin "{WEIGHTS_FILE}"',
            '    .section .note.GNU-stack, "", %progbits',
            "",
        ]
    )


class _Tensors:
    """The kernels' view of each tensor, numbered; equal ones are one."""

    def __init__(self) -> None:
        self._numbers: dict[Tensor, int] = {}

    def number(self, tensor: Tensor) -> int:
        return self._numbers.setdefault(tensor, len(self._numbers))

    def source(self) -> list[str]:
        shapes = {shape: i for i, shape in enumerate(dict.fromkeys(tensor.shape for tensor in self._numbers))}
        lines = [_extents(f"shape_{number}", shape) for shape, number in shapes.items()]
        lines.append("static kernel_tensor tensors[] = {")
        for tensor in self._numbers:
            code, bits = _dtype(tensor.dtype)
            lines.append(
                f"    {{{_address(tensor.place)}, {{KERNEL_CPU, 0}}, {len(tensor.shape)}, {{{code}, {bits}, 1}}, "
                f"(int64_t *)shape_{shapes[tensor.shape]}, 0, 0}},"
            )
        return [*lines, "};" if self._numbers else "    {0}};"]


def _arguments(number: int, tensors: list[int]) -> str:
    given = ", ".join(f"{{KERNEL_TENSOR, 0, {{.pointer = &tensors[{tensor}]}}}}" for tensor in tensors)
    return f"static kernel_argument arguments_{number}[] = {{{given or '{0}'}}};"


def _block(name: str, size: int) -> str:
    return f"static unsigned char {name}[{max(size, 1)}] __attribute__((aligned({ALIGNMENT})));"


def _ports(kind: str, tensors: tuple[Tensor, ...], names: tuple[str, ...]) -> list[str]:
    lines = [_extents(f"{kind}_shape_{number}", tensor.shape) for number, tensor in enumerate(tensors)]
    lines.append(f"static const struct port {kind}[] = {{")
    for number, (tensor, name) in enumerate(zip(tensors, names, strict=True)):
        lines.append(
            f'    {{{_text(name)}, "{tensor.dtype}", {_address(tensor.place)}, {tensor.bytes}u, '
            f"{kind}_shape_{number}, {len(tensor.shape)}}},"
        )
    return [*lines, "};" if tensors else "    {0}};"]


def _extents(name: str, shape: tuple[int, ...]) -> str:
    return f"static const int64_t {name}[] = {{{', '.join(map(str, shape)) or '1'}}};"


def _address(place: Place) -> str:
    block = "edgeprune_weights" if place.block == "weights" else place.block
    return f"(void *)({block} + {place.offset})"


def _dtype(name: str) -> tuple[int, int]:
    """DLPack's type code and the bits of a type."""
    if name == "bool":
        return _CODES["bool"], 8
    kind = name.rstrip("0123456789")
    return _CODES[kind], int(name[len(kind) :])


def _text(text: str) -> str:
    """A C string; JSON's escapes of ASCII are C's, but for those of other characters, which are left out."""
    plain = "".join(letter for letter in text if " " <= letter <= "~")
    return json.dumps(plain).replace("??", "?\\?")
