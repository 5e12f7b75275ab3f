"""`edgeprune devices`: the known devices and whether they answer; stand-ins; leaving nothing behind on a device."""

from __future__ import annotations

import argparse
import contextlib

from edgeprune.cli.listing import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be done to devices; nothing: list them."""
    from edgeprune import standins

    actions = parser.add_subparsers(metavar="ACTION", dest="action")
    for action, summary in (("up", "start a stand-in for a board that is not here"), ("down", "end a stand-in")):
        own = actions.add_parser(action, help=summary, description=summary[0].upper() + summary[1:] + ".")
        own.add_argument("name", choices=standins.names(), help="which one")
    summary = "remove everything of edgeprune's from a device"
    clean = actions.add_parser("clean", help=summary, description=summary[0].upper() + summary[1:] + ".")
    clean.add_argument(
        "name", nargs="?", metavar="DEVICE", help="such as phone or pi@host; default: all that are known"
    )


def carry_out(given: argparse.Namespace) -> int:
    """Do what is asked, or ask each device for its facts; 1 if one does not answer."""
    if given.action == "up":
        return _up(given.name)
    if given.action == "clean":
        return _clean(given.name)
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


def _clean(name: str | None) -> int:
    """1 if a device cannot be cleaned: it does not answer, or a run has it."""
    from edgeprune import diagnosis, transport
    from edgeprune.errors import DeviceError

    failed = 0
    for device in diagnosis.known() if name is None else [transport.find(name)]:
        try:
            with contextlib.closing(transport.connect(device)) as way:
                if not way.acquire():
                    raise DeviceError(f"{device.name}: in use by {way.holder() or 'another run'}")
                way.clean()
        except DeviceError as error:
            failed += 1
            print(f"not cleaned: {error.message}" + (f"; {error.hint}" if error.hint else ""))
        else:
            print(f"clean: {device.name}")
    return 1 if failed else 0


def _listed() -> int:
    from edgeprune import diagnosis

    answers = [*diagnosis.call(diagnosis.known()), *diagnosis.others()]
    rows = [(one.name, one.state, one.hardware, one.target, one.system, one.reason) for one in answers]
    show(("device", "state", "hardware", "target", "system", "reason"), rows)
    return 1 if any(one.is_silent for one in answers) else 0
