"""The user's own code: getting a function out of it, and where in it an error arose.

Start with `import_callable`, which runs that code, and `users_line`.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from edgeprune.errors import EdgepruneError, TraceError, nearest_hint


def import_callable(spec: str, what: str, wanted: str, kind: type[EdgepruneError]) -> Callable[..., Any]:
    """A function or class of the user's, by where it lies. Importing runs the user's code.

    Args:
        spec: "package.module:callable"; the current directory is searched first, then the installed packages.
        what: What it is to be, for messages, such as "model".
        wanted: What to name instead of something that cannot be called, for hints.
        kind: The error to raise: the module or the callable is not there, or importing it raised.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise kind(f"{what} {spec!r} is not of the form package.module:callable", hint="such as my_package.mine:build")
    with current_directory_first():
        module = _import(spec, what, module_name, kind)
    where = getattr(module, "__file__", None) or module_name
    try:
        found: object = getattr(module, attribute)
    except AttributeError as error:
        public = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise kind(f"{what} {spec}: {where} has no {attribute!r}", hint=nearest_hint(attribute, public)) from error
    if not callable(found):
        message = f"{what} {spec}: {attribute} in {where} is a {type(found).__name__}, not a callable"
        raise kind(message, hint=wanted)
    return cast("Callable[..., Any]", found)


def _import(spec: str, what: str, module_name: str, kind: type[EdgepruneError]) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise kind(
                f"{what} {spec}: no module named {missing!r}",
                hint=f"looked in {Path.cwd()} and in the installed packages; run edgeprune where the module is",
            ) from error
        message = f"{what} {spec}: importing {module_name} raised {describe(error)}"
        raise kind(message, hint=f"install {missing}") from error
    except (Exception, SystemExit) as error:
        raise kind(
            f"{what} {spec}: importing {module_name} raised {describe(error)}",
            hint="run it alone: python -c " + shlex.quote(f"import {module_name}"),
        ) from error


@contextmanager
def current_directory_first() -> Iterator[None]:
    """While it lasts, modules are searched in the current directory before all else."""
    here = os.getcwd()
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # the user's code may have changed the path itself
        with suppress(ValueError):
            sys.path.remove(here)


def describe(error: BaseException, otherwise: str = "") -> str:
    """The exception's name and text, with the innermost line of the user's own code that led to it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line = users_line(error)
    return text + (f" [{line}]" if line else otherwise)


def users_line(error: BaseException) -> str | None:
    """The innermost line of the user's own code that led to an error, as "file:line", or None if no line did.

    That is code outside edgeprune, Python's library and the installed packages; where there is none, as when the
    network comes from a package, the innermost line of an installed package other than torch.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    edgeprune = Path(__file__).resolve().parent
    stdlib, *packages = (Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib"))
    own, installed = [], []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename).resolve()
        if frame.filename.startswith("<") or path.is_relative_to(edgeprune):
            continue
        if _is_in(path, packages):
            if not _is_in(path, [folder / "torch" for folder in packages]):
                installed.append(frame)
        elif not path.is_relative_to(stdlib):
            own.append(frame)
    innermost = (own or installed)[-1:]
    return f"{innermost[0].filename}:{innermost[0].lineno}" if innermost else None


def untraceable(model: object, error: BaseException, tracers: str = "torch.fx cannot") -> TraceError:
    """What to tell the user whose model's forward can not be followed."""
    line = users_line(error)
    by_values = type(error).__name__.startswith("GuardOnDataDependent")
    said = "it decides by the numbers in a tensor" if by_values else str(error).strip().partition("\n")[0]
    return TraceError(
        f"{tracers} follow {type(model).__name__}.forward{f' at {line}' if line else ''}: "
        f"{type(error).__name__}{f': {said}' if said else ''}",
        hint="forward must not decide by the values of tensors: replace `if`, `for`, int() and .item() on them by "
        "torch operations such as torch.where, or decide by attributes of the module",
    )


def _is_in(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
