"""A user's own network, named "package.module:callable". Start with `load`.

Naming a module runs the user's code: the module is imported, from the current directory too, and the callable is
called. Only name code that you trust. Whatever goes wrong in it ends as one ModelError that says where in the user's
own file.
"""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from edgeprune.errors import ModelError, nearest_hint
from edgeprune.user_code import users_line

if TYPE_CHECKING:
    from torch import nn


def load(spec: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """Import and call a user's own model builder. This runs the user's code.

    Args:
        spec: "package.module:callable"; the current directory is searched first, then the installed packages.
        seed: Of torch's random numbers while the callable runs, so that fresh weights repeat.
        options: Given to the callable as keyword arguments.

    Returns:
        The module that the callable returned.

    Raises:
        ModelError: The module or the callable is not there, raises, or returns something else than a torch module;
            the message names them and the file and line of the user's code.

    >>> type(load("torch.nn:Linear", in_features=2, out_features=3)).__name__
    'Linear'
    """
    import torch

    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ModelError(
            f"model {spec!r} is not of the form package.module:callable", hint="such as my_nets.small:build"
        )
    with _current_directory_first(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory = _find(spec, module_name, attribute)
        try:
            model = factory(**options)
        except (Exception, SystemExit) as error:
            arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
            raise ModelError(
                f"model {spec}: {attribute}({arguments}) raised {_describe(error, _definition(factory))}",
                hint="run it alone: python -c " + shlex.quote(f"import {module_name} as m; m.{attribute}({arguments})"),
            ) from error
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"model {spec}: {attribute} returned {type(model).__name__}, not a torch.nn.Module",
            hint="the callable builds and returns the network",
        )
    return model


def _find(spec: str, module_name: str, attribute: str) -> Callable[..., object]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise ModelError(
                f"model {spec}: no module named {missing!r}",
                hint=f"looked in {Path.cwd()} and in the installed packages; run edgeprune where the module is",
            ) from error
        raise ModelError(
            f"model {spec}: importing {module_name} raised {_describe(error)}", hint=f"install {missing}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"model {spec}: importing {module_name} raised {_describe(error)}",
            hint="run it alone: python -c " + shlex.quote(f"import {module_name}"),
        ) from error
    where = getattr(module, "__file__", None) or module_name
    try:
        found: object = getattr(module, attribute)
    except AttributeError as error:
        public = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise ModelError(f"model {spec}: {where} has no {attribute!r}", hint=nearest_hint(attribute, public)) from error
    if not callable(found):
        raise ModelError(
            f"model {spec}: {attribute} in {where} is a {type(found).__name__}, not a callable",
            hint="name a function or class that builds the network",
        )
    return cast("Callable[..., object]", found)


def _definition(factory: Any) -> str:
    """File and line where a function or class is written, in brackets; empty if that is not Python."""
    function = inspect.unwrap(vars(factory).get("__init__", factory) if isinstance(factory, type) else factory)
    code = getattr(function, "__code__", None)
    return f" [{code.co_filename}:{code.co_firstlineno}]" if isinstance(code, CodeType) else ""


def _describe(error: BaseException, otherwise: str = "") -> str:
    """The exception's name and text, with the innermost line of the user's own code that led to it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line = users_line(error)
    return text + (f" [{line}]" if line else otherwise)


@contextmanager
def _current_directory_first() -> Iterator[None]:
    here = os.getcwd()
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # the user's code may have changed the path itself
        with suppress(ValueError):
            sys.path.remove(here)
