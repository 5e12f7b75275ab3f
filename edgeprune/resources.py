"""Where the files that are no Python of this package lie: agents, workers, profiles and matrices.

In a checkout they are the folders `devices/` and `benchmarks/matrices/`; in an installed wheel the same folders lie
inside the package. Everything else asks here, so that both layouts work alike.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "_shipped"


def devices_folder() -> Path:
    """The folder with `agent/`, `workers/` and `profiles/`."""
    shipped = _SHIPPED / "devices"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "devices"


def matrices_folder() -> Path:
    """The folder with the matrices that edgeprune brings along."""
    shipped = _SHIPPED / "matrices"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "benchmarks" / "matrices"


def cache_folder() -> Path:
    """Where artifacts are kept: $EDGEPRUNE_CACHE, else $XDG_CACHE_HOME/edgeprune, else ~/.cache/edgeprune."""
    own = os.environ.get("EDGEPRUNE_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "edgeprune"


def config_folder() -> Path:
    """Where a user writes down what edgeprune is to know: $XDG_CONFIG_HOME/edgeprune, else ~/.config/edgeprune."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser().resolve() / "edgeprune"
