"""The emulator of a target, for tests: without one they are skipped, in CI they fail."""

from __future__ import annotations

import os

import pytest

from edgeprune import compiling, emulation
from edgeprune.emulation import Emulator
from edgeprune.errors import DeviceError


def emulator(target: str) -> Emulator:
    """qemu-user for the target's architecture."""
    try:
        return emulation.find_emulator(compiling.target(target).architecture)
    except DeviceError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.message}: {error.hint}")
