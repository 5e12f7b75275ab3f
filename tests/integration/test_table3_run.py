"""The papers' device table with small data, by the stand-ins: everything but its times, and without a person's hand.

Of its networks resnet32 is run. The other three take too long under emulation for a test: vgg16, alexnet for 224x224
images and resnet101 are 5 to 110 times the work; what they are made of is compiled and compared elsewhere.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.resources import matrices_folder
from tests.standins import Plugged, Reached
from tests.unit.dataset_files import write_cifar

SECONDS = 1800
NETWORK = "resnet32"


def only(network: str, table: str) -> str:
    """The table with one of its networks, trained for one epoch."""
    kept = [
        line
        for line in table.splitlines()
        if not re.match(r"  - (\{name: )?(vgg16|resnet32|alexnet|resnet101)\b", line) or network in line
    ]
    kept = [line for line in kept if "{models: " not in line or f"{{models: {network}," in line]
    return re.sub(r"epochs: \d+", "epochs: 1", "\n".join(kept)) + "\n"


@pytest.fixture
def cache(tmp_path: Path, virtual_pi: Reached, virtual_phone: Plugged) -> Path:
    """A cache in which the running stand-ins are those that a matrix means by their names."""
    standins = tmp_path / "cache" / "standins"
    standins.mkdir(parents=True)
    (standins / "virtual-pi").symlink_to(virtual_pi.folder)
    (standins / "virtual-phone").symlink_to(virtual_phone.folder)
    return tmp_path / "cache"


def test_a_network_of_the_table_answers_rightly_on_a_board_and_on_a_phone(tmp_path: Path, cache: Path) -> None:
    write_cifar(tmp_path / "cifar10", 10, "binary", packed=False)
    table = only(NETWORK, (matrices_folder() / "table3.yaml").read_text())
    (tmp_path / "table3.yaml").write_text(table)
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", "run", "table3.yaml", "--devices", "virtual-pi,virtual-phone"],
        cwd=tmp_path, env=os.environ | {"EDGEPRUNE_CACHE": str(cache), "CIFAR10": str(tmp_path / "cifar10")},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "results" / "table3" / "cells.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    methods = ("lobster(batch_size=128,epochs=1)", "serene-global(batch_size=128,epochs=1)")
    recipes = [("", "dense"), *((method, variant) for method in methods for variant in ("masked", "shrunk"))]
    assert sorted((cell["device"], cell["method"], cell["variant"]) for cell in cells) == sorted(
        (device, *recipe) for device in ("virtual-phone", "virtual-pi") for recipe in recipes
    )
    for cell in cells:
        assert cell["model"] == NETWORK
        assert (cell["status"], cell["latency_ns_median"]) == ("skipped", "")
        assert cell["reason"].startswith("emulated: ")
        assert float(cell["parity_rel"]) <= 1e-4
        assert int(cell["instructions"]) > 0
    by_filters = {cell["variant"]: cell for cell in cells if cell["method"] == methods[1]}
    assert int(by_filters["shrunk"]["instructions"]) < int(by_filters["masked"]["instructions"])
