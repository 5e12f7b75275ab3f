"""`edgeprune devices`: the known devices and whether they answer."""

from __future__ import annotations

import argparse

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This verb takes none."""


def carry_out(given: argparse.Namespace) -> int:
    """Ask each device for its facts; 1 if one does not answer."""
    from edgeprune import transport
    from edgeprune.errors import DeviceError

    rows, silent = [], 0
    for name in transport.devices():
        try:
            facts = transport.connect(name).facts()
        except DeviceError as error:
            silent += 1
            rows.append((name, "no answer", error.message, "", ""))
        else:
            cores = f"{len(facts['cores'])} cores"
            rows.append((name, "answers", facts["processor"], f"{facts['machine']}, {cores}", facts["os"]))
    show(("device", "state", "processor", "machine", "system"), rows)
    return 1 if silent else 0
