"""The papers' device table is ready to run: it loads where the data is, and its cells are the table's."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import pytest

from edgeprune.errors import MatrixError
from edgeprune.matrix import spec
from edgeprune.matrix.cells import cells

# dataset, network, and the paper's pruned parameters by LOBSTER (a share) and by SeReNe (%)
ROWS = [
    ("cifar10", "vgg16", 0.9244, 47.16),
    ("cifar10", "resnet32", 0.8119, 52.80),
    ("cifar100", "alexnet", 0.989, 59.87),
    ("image_folder", "resnet101", 0.8739, 1.09),
]
DEVICES = ["rpi3b", "p20", "mi9", "s6-lite"]
SCHEDULE = "batch_size=128,epochs=100"
VARIABLES = ["CIFAR10", "CIFAR100", "IMAGENET"]


def test_its_cells_are_those_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))
    table = spec.load(spec.find("table3"))
    keys = cells(table)
    assert [device.name for device in table.devices] == DEVICES
    for device in DEVICES:
        found = {
            (key.network.dataset, key.network.model, key.network.method, key.network.pruning_ratio)
            for key in keys
            if key.device == device and key.network.variant != "masked"
        }
        expected = {(dataset, model, "", None) for dataset, model, _, _ in ROWS}
        expected |= {(dataset, model, f"lobster({SCHEDULE})", share) for dataset, model, share, _ in ROWS}
        assert {one for one in found if not one[2].startswith("serene")} == expected
        serene = f"serene-global({SCHEDULE})"
        filters = {(dataset, model): ratio for dataset, model, method, ratio in found if method == serene}
        for dataset, model, _, parameters in ROWS:
            assert filters[dataset, model] == pytest.approx(1 - sqrt(1 - parameters / 100), abs=6e-4)
    # four networks, each dense, and masked and shrunk by two methods, on every device
    assert len(keys) == 4 * (1 + 2 * 2) * len(DEVICES)


def test_without_the_data_it_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MatrixError, match=r"table3\.yaml:\d+: data: dataset cifar10: no folder \$CIFAR10") as caught:
        spec.load(spec.find("table3"))
    assert caught.value.hint == "set that variable to the folder of your copy"
