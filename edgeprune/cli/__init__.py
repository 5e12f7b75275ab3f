"""The command `edgeprune`: one module a verb, loaded only when it is used. Start with `main`.

Exit status: 0 done; 1 a cell, a stage or a device failed; 2 the request cannot be carried out as written; 130 stopped
by Ctrl-C. An error is one message on stderr with a hint; `--debug` adds the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from edgeprune import __version__
from edgeprune.errors import EdgepruneError
from edgeprune.storage import storage_error

INTERRUPTED = 130

_VERBS = {
    "run": "carry out a matrix: prune, shrink, compile, measure, report; the same command again goes on",
    "report": "tables, figures and report.html from a results folder",
    "compare": "what changed between two results folders, with confidence",
    "status": "what of a results folder is done, failed and left",
    "shrink": "shrink a masked network of your own to an ONNX file",
    "compile": "compile an ONNX file to one static program for a device",
    "tune": "try a network's convolutions in other forms on the device; `compile --tuned` uses the faster ones",
    "doctor": "what is installed here, what blocks good numbers, and how to mend it",
    "devices": "the known devices and whether they answer",
    "models": "the networks that a matrix can name",
    "methods": "the pruning methods that a matrix can name",
    "targets": "the targets that can be compiled for",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    given = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        status: int = given.carry_out(given)
        return status
    except EdgepruneError as error:
        if given.debug:
            raise
        _explain(error)
        return error.exit_status
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if given.debug:
            raise
        _explain(storage_error(error, Path(error.filename or ".")))
        return 1
    except KeyboardInterrupt:
        print("edgeprune: stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if given.debug:
            raise
        _explain(
            EdgepruneError(
                f"{type(error).__name__}: {error}", hint="this is a defect of edgeprune: report it with --debug"
            )
        )
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with only the wanted verb's module loaded: help and a wrong word load none."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="edgeprune",
        description="Measure what structured pruning really gains on edge devices.",
        epilog="Start with: edgeprune run quickstart",
    )
    parser.add_argument("--version", action="version", version=f"edgeprune {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    wanted = next((word for word in words if not word.startswith("-")), None)
    for verb, summary in _VERBS.items():
        own = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".", parents=[common])
        if verb == wanted:
            module = importlib.import_module(f"edgeprune.cli.{verb}")
            module.add_arguments(own)
            own.set_defaults(carry_out=module.carry_out)
    return parser


def _explain(error: EdgepruneError) -> None:
    print(f"edgeprune: {error.message}", file=sys.stderr)
    if error.detail:
        print("\n".join(f"  | {line}" for line in error.detail.splitlines()[-12:]), file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """A polite request to end is treated as Ctrl-C: nothing is left running."""
    raise KeyboardInterrupt
