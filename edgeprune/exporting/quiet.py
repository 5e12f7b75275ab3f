"""torch.export and the ONNX exporter without their talk. Start with `quiet`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGS = ("torch", "torch.onnx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines and prints, on either stream: what matters of them ends as an error."""
    before = {name: logging.getLogger(name).level for name in _LOGS}
    for name in _LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    unread = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
