"""The pages for a first board and a first phone: what they say, done by a user with the installed wheel.

Where a page names a board, the stand-in that it offers takes its place; lines for other programs (ssh-copy-id, apt-get)
stand in blocks without a language and are not run.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune import standins
from tests.conftest import CHECKOUT, Installed
from tests.standins import Plugged, Reached

PAGES = {
    "first_raspberry_pi.md": ("virtual-pi", "pi@raspberrypi.local", "results/pi"),
    "first_phone.md": ("virtual-phone", "phone", "results/phone"),
}

_LISTING = 'ls -A {folder}; for p in /proc/[0-9]*; do tr "\\0" " " <"$p/cmdline"; echo; done 2>/dev/null; true'


@pytest.fixture(params=sorted(PAGES))
def page(request: pytest.FixtureRequest, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page whose stand-in the user has started."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(installed.folder / "config"))
    stand_in = PAGES[request.param][0]
    done = installed.run("edgeprune", "devices", "up", stand_in)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    yield request.param
    assert installed.run("edgeprune", "devices", "down", stand_in).returncode == 0


def test_the_commands_of_the_page_work(page: str, installed: Installed) -> None:
    stand_in, board, results = PAGES[page]
    text = (CHECKOUT / "devices" / page).read_text()
    ran = []
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M):
        block = re.sub(rf"((?:doctor|clean|address:) |\[){re.escape(board)}", rf"\g<1>{stand_in}", block)
        if kind == "yaml":
            _write(installed.folder, block)
            continue
        for line in block.splitlines():
            done = installed.run(*shlex.split(line), timeout=900)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            ran.append(line.split()[1])
    assert ran == ["devices", "doctor", "run", "status", "devices"]
    assert not re.search(r"^edgeprune|agent\.sh|serve --threads", _what_is_there(stand_in, installed.folder), re.M)
    with (installed.folder / results / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    for row in rows:
        assert row["status"] == "skipped"
        assert row["reason"].startswith("emulated")
        assert float(row["parity_rel"]) <= 1e-4
        assert not row["latency_ns_median"]
        if row["runtime"] == "native":
            assert int(row["instructions"]) > 0, row["reason"]


def _what_is_there(stand_in: str, place: Path) -> str:
    """The folder on the stand-in that edgeprune's own lies in, and the command lines of all that runs there."""
    device = place / "cache" / "standins" / stand_in / "device.json"
    if stand_in == "virtual-phone":
        return Plugged.by(device).shell(_LISTING.format(folder="/data/local/tmp")).decode()
    done = Reached.by(device).run(_LISTING.format(folder="~/.cache"))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def _write(folder: Path, block: str) -> None:
    """Write a file whose first line says where it belongs; ~/.config is the user's own."""
    found = re.match(r"# (\S+)\n", block)
    assert found
    path = folder / found[1].replace("~/.config", "config")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block)


def test_the_pages_name_stand_ins_that_there_are() -> None:
    for stand_in, _, _ in PAGES.values():
        assert stand_in in standins.names()
