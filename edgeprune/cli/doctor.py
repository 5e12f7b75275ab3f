"""`edgeprune doctor [DEVICE]`: what is installed, what blocks good numbers, and the command that mends it."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show

_MARKS = {"good": "ok", "warning": "warn", "blocked": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="such as phone or pi@host; default: this machine")


def carry_out(given: argparse.Namespace) -> int:
    """Print every finding; 1 if something blocks measuring."""
    from edgeprune import emulation, transport
    from edgeprune.diagnosis import look_here, look_there

    named = given.device or transport.LOCAL
    is_emulated = named in emulation.devices()
    device = None if is_emulated else transport.find(named)
    found = list(look_here()) if is_emulated or given.device in (None, transport.LOCAL) else []
    if device is not None:
        found += look_there(device)
    rows = [(_MARKS[one.state], one.check, one.figure, one.limit, one.advice) for one in found]
    show(("", "what", "found", "should be", "what to do"), rows)
    return 1 if any(one.state == "blocked" for one in found) else 0
