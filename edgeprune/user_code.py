"""Where in the user's own code an error arose. Start with `users_line`."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from edgeprune.errors import TraceError


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
