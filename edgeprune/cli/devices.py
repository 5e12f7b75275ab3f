"""`edgeprune devices`: the known devices, whether they answer, and what an emulated one needs; stand-ins."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be done to devices; nothing: list them."""
    from edgeprune import standins

    actions = parser.add_subparsers(metavar="ACTION", dest="action")
    for action, summary in (("up", "start a stand-in for a board that is not here"), ("down", "end a stand-in")):
        own = actions.add_parser(action, help=summary, description=summary[0].upper() + summary[1:] + ".")
        own.add_argument("name", choices=standins.names(), help="which one")


def carry_out(given: argparse.Namespace) -> int:
    """Do what is asked, or ask each device for its facts; 1 if one does not answer."""
    if given.action == "up":
        return _up(given.name)
    if given.action == "down":
        from edgeprune import standins

        standins.down(given.name)
        return 0
    return _listed()


def _up(name: str) -> int:
    from edgeprune import standins

    device = standins.up(name)
    print(f"{name} runs; a matrix may name it, and {device} tells how it is reached.")
    print(f"It runs until: edgeprune devices down {name}")
    return 0


def _listed() -> int:
    from edgeprune import transport
    from edgeprune.errors import DeviceError

    rows, silent = [], 0
    for name in [transport.LOCAL, *(device.name for device in transport.own_devices())]:
        try:
            facts = transport.connect(name).facts()
        except DeviceError as error:
            silent += 1
            rows.append((name, "no answer", error.message, "", ""))
        else:
            cores = f"{len(facts['cores'])} cores"
            rows.append((name, "answers", facts["processor"], f"{facts['machine']}, {cores}", facts["os"]))
    rows += _emulated()
    show(("device", "state", "processor", "machine", "system"), rows)
    return 1 if silent else 0


def _emulated() -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each emulated device: instructions are counted there, with qemu-user."""
    from edgeprune import compiling, emulation
    from edgeprune.errors import DeviceError

    hint = ""
    for name in emulation.devices():
        target = compiling.target(emulation.target_of(name) or "")
        state, version = "available", ""
        try:
            version = emulation.find_emulator(target.architecture).version()
        except DeviceError as error:
            state, hint = "needs qemu-user", error.hint or error.message
        yield name, state, target.cpu or "any", f"{target.architecture}, counts instructions", version
    if hint:
        print(f"qemu-user: {hint}", file=sys.stderr)
