"""stdout for the protocol alone: libraries that print when they are loaded print on stderr. Start with `claim`."""

from __future__ import annotations

import os
import sys


def claim() -> None:
    """Keep stdout for `sys.stdout`; what C++ code writes to descriptor 1 from now on goes to stderr."""
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
