"""A user's own network, named "package.module:callable". Start with `load`.

Naming a module runs the user's code: the module is imported, from the current directory too, and the callable is
called. Only name code that you trust. Whatever goes wrong in it ends as one ModelError that says where in the user's
own file.
"""

from __future__ import annotations

import inspect
import shlex
from types import CodeType
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ModelError
from edgeprune.user_code import current_directory_first, describe, import_callable

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
    with current_directory_first(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory = import_callable(spec, "model", "name a function or class that builds the network", ModelError)
        try:
            model = factory(**options)
        except (Exception, SystemExit) as error:
            arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
            raise ModelError(
                f"model {spec}: {attribute}({arguments}) raised {describe(error, _definition(factory))}",
                hint="run it alone: python -c " + shlex.quote(f"import {module_name} as m; m.{attribute}({arguments})"),
            ) from error
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"model {spec}: {attribute} returned {type(model).__name__}, not a torch.nn.Module",
            hint="the callable builds and returns the network",
        )
    return model


def _definition(factory: Any) -> str:
    """File and line where a function or class is written, in brackets; empty if that is not Python."""
    function = inspect.unwrap(vars(factory).get("__init__", factory) if isinstance(factory, type) else factory)
    code = getattr(function, "__code__", None)
    return f" [{code.co_filename}:{code.co_firstlineno}]" if isinstance(code, CodeType) else ""
