"""ONNX Runtime's worker keeps what it does to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgeprune.resources import devices_folder

WORKER = devices_folder() / "workers" / "onnxruntime_worker.py"


def test_nothing_is_left_in_the_user_s_cache(tmp_path: Path) -> None:
    """From 1.29 on, ONNX Runtime writes an identifier there and sends what it ran, unless it runs for CI."""
    without = ("CI", "ORT_DISABLE_TELEMETRY")
    environment = {key: value for key, value in os.environ.items() if key not in without}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-B", str(WORKER)],
        input=b'{"op":"quit"}\n', env=environment, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
