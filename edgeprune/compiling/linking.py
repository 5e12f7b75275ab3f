"""C compilers that link code for a target: ziglang from PyPI, or one that the user names.

zig brings a C library for every target, so a laptop needs neither root nor a cross compiler; its first program for a
target takes a minute or two, while it builds that library. Start with `find_linker`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import CompileError

VARIABLE = "EDGEPRUNE_CC"
"""Environment variable that names a cross compiler or an NDK's clang, with its options, for `find_linker`."""

_STATIC = (
    "-std=gnu11",
    "-Os",
    "-static",
    "-pthread",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
    "-s",
)
_SHARED = ("-shared", "-fPIC", "-s")
_LIBRARIES = ("-lm",)
_TAIL = 3000
_FULL_BYTES = 1 << 16


@dataclass(frozen=True)
class Linker:
    """A C compiler that makes programs and libraries for one target.

    Attributes:
        name: What it is called in messages.
        command: The words of its command line that come first.
        hint: What to do when it fails.
    """

    name: str
    command: tuple[str, ...]
    hint: str

    def link(self, sources: Sequence[str], folder: Path, program: str) -> None:
        """Compile and link files of a folder into a static, stripped program there.

        Raises:
            CompileError: the compiler fails; what it says is the detail.
            OSError: it fails and the disk is full.
        """
        self._make((folder / program).absolute(), "program", [*_STATIC, *sources], folder)

    def link_library(self, library: str, objects: Sequence[str]) -> None:
        """Link object files into a shared library, as TVM's `export_library` calls its `fcompile`.

        Raises:
            CompileError: the compiler fails; what it says is the detail.
            OSError: it fails and the disk is full.
        """
        made = Path(library).absolute()
        self._make(made, "library", [*_SHARED, *map(os.path.abspath, objects)], made.parent)

    def _make(self, made: Path, kind: str, words: Sequence[str], folder: Path) -> None:
        command = [*self.command, *words, "-o", str(made), *_LIBRARIES]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise CompileError(f"cannot start {self.name}: {error.strerror}", hint=self.hint) from error
        if done.returncode or not made.is_file():
            if shutil.disk_usage(folder).free < _FULL_BYTES:  # zig aborts without a word
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            told = (done.stderr or done.stdout)[-_TAIL:]
            raise CompileError(
                f"{self.name} could not link the {kind}", hint=self.hint, detail=told or f"status {done.returncode}"
            )


def find_linker(triple: str) -> Linker:
    """The compiler that $EDGEPRUNE_CC names, else zig for the target's triple.

    Args:
        triple: Architecture, system and binary interface as zig names them: aarch64-linux-musl.

    Raises:
        CompileError: there is none.
    """
    try:
        named = shlex.split(os.environ.get(VARIABLE, ""))
    except ValueError as error:
        raise CompileError(f"${VARIABLE} is no command line: {error}", hint=_hint()) from error
    if named:
        found = shutil.which(named[0])
        if found is None:
            raise CompileError(f"${VARIABLE} names {named[0]}, which is not here", hint=_hint())
        return Linker(Path(found).name, (found, *named[1:]), _hint())
    if importlib.util.find_spec("ziglang") is None:
        raise CompileError(f"no compiler for {triple} is installed", hint=_hint())
    return Linker("zig", (sys.executable, "-m", "ziglang", "cc", "-target", triple), _hint())


def find_host_linker() -> Linker:
    """The C compiler of this machine: the one that $CC names, or the first that is installed.

    Raises:
        CompileError: there is none.
    """
    hint = "install a C compiler (Debian: apt install gcc; macOS: xcode-select --install) or set CC"
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang", "g++"):
        found = shutil.which(name) if name else None
        if found:
            return Linker(name, (found,), hint)
    raise CompileError("no C compiler was found to link the compiled network", hint=hint)


def _hint() -> str:
    return f"pip install ziglang, or set {VARIABLE} to a cross compiler for the target"
