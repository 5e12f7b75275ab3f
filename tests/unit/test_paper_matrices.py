"""The papers' tables and figures are ready to run: each loads where the data is, and has the rows of its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgeprune import pruning
from edgeprune.matrix import spec
from edgeprune.matrix.cells import cells, networks
from edgeprune.pruning.choosing import counts
from edgeprune.resources import matrices_folder

VARIABLES = ["CIFAR10", "CIFAR100", "IMAGENET", "CITYSCAPES", "MNIST", "ISIC", "ISIC_SEGMENTATION", "COCO"]
TENTHS = [round(0.1 * tenth, 1) for tenth in range(1, 10)]
# matrix: (dataset, network): the methods of the table's rows, and how many networks each leaves
ROWS: dict[str, dict[tuple[str, str], dict[str, int]]] = {
    "effects_resnet50": {("image_folder", "resnet50"): {"slimming": 9}},
    "effects_hrnet48": {("cityscapes", "hrnet48"): {"slimming": 9}},
    "psp_figure3": {("cifar10", "resnet56"): {"l1": 5, "psp": 14}},
    "psp_table2": {("cifar10", "densenet40"): {"psp": 5}},
    "psp_table3": {
        (data, model): {"psp": 1}
        for data in ("cifar10", "cifar100")
        for model in ("resnet56", "densenet40", "densenet100")
    },
    "psp_table4": {
        ("image_folder", "mobilenetv2(width=1.4)"): {},
        **{
            ("image_folder", model): {"psp": 1}
            for model in ("resnet18", "resnet50", "densenet_bc121", "densenet_c63", "densenet_c87")
        },
    },
    "psp_table5_cifar10": {
        ("cifar10", "resnet56"): dict.fromkeys(["thinet", "channel-pruning", "dcp", "sfp", "psp"], 1),
        ("cifar10", "densenet40"): {"slimming": 1, "psp": 1},
    },
    "psp_table5_imagenet": {
        ("image_folder", "resnet18"): {"dcp": 1, "sfp": 1, "psp": 1},
        ("image_folder", "resnet50"): dict.fromkeys(["thinet", "channel-pruning", "dcp", "spp", "sfp", "psp"], 1),
    },
    "thesis_table5_1": {("cifar10", "resnet110"): dict.fromkeys(["l1", "fpgm", "sfp", "hrank", "nisp", "learned"], 1)},
    "thesis_table5_2": {("cifar100", "resnet56"): {"fma": 1, "learned": 1}},
    "roundtrip_figure1": {("image_folder", "lenet5"): {"lobster": 5}, ("image_folder", "resnet18"): {"lobster": 5}},
    "roundtrip_table1": {("image_folder", "lenet5"): {"serene": 1, "l2": 1}},
    "roundtrip_table2": {("image_folder", "resnet101"): {"serene": 1, "l2": 1}},
    "roundtrip_table4": {("image_folder", "vgg16_imagenet"): {}, ("cityscapes", "segnet(3x224x224)"): {"serene": 1}},
    "roundtrip_table5": {("image_folder", "resnet18"): {"neq": 1}, ("cityscapes", "deeplabv3"): {"neq": 1}},
    "mini_project_pareto": {("cifar10", "vgg16"): {"thinet": 9, "l1": 9, "magnitude": 18}},
    "mini_project_final": {("cifar10", "vgg16"): {"iterative": 3}},
}
OTHERS = {"fpga", "quickstart", "methods_digits", "table3"}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))


def ratios(name: str) -> dict[tuple[str, str], list[float]]:
    """What goes, by network and method."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in networks(spec.load(spec.find(name))):
        if one.recipe is not None and one.key.variant == "shrunk" and isinstance(one.recipe.ratio, float):
            found.setdefault((one.key.model, one.recipe.method), []).append(one.recipe.ratio)
    return found


def test_every_matrix_that_comes_along_is_held_to_something() -> None:
    assert {file.stem for file in matrices_folder().glob("*.yaml")} == ROWS.keys() | OTHERS


@pytest.mark.parametrize("name", ROWS)
def test_it_has_the_rows_of_its_table(name: str) -> None:
    table = spec.load(spec.find(name))
    found: dict[tuple[str, str], dict[str, int]] = {}
    for one in networks(table):
        methods = found.setdefault((one.key.dataset, one.key.model), {})
        if one.recipe is not None and one.key.variant == "shrunk":
            methods[one.recipe.method] = methods.get(one.recipe.method, 0) + 1
    assert found == ROWS[name]
    pruned = sum(number for methods in ROWS[name].values() for number in methods.values())
    # each network dense, and masked and shrunk by each recipe
    assert len(cells(table)) == (len(ROWS[name]) + 2 * pruned) * len(table.runtimes)


@pytest.mark.parametrize("name", ROWS)
def test_its_first_lines_say_which_table_it_is_and_where_the_data_goes(name: str) -> None:
    text = spec.find(name).read_text()
    opening = text.partition("\nname:")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert any(word in opening for word in ("table", "figure", "Pareto plots"))
    folders = {one["folder"] for one in _data(yaml.safe_load(text))}
    for folder in folders:
        assert f"{folder.removeprefix('$')}: " in opening or f"{folder.removeprefix('$')}, " in opening


def _data(matrix: dict[str, object]) -> list[dict[str, str]]:
    """Every dataset that a matrix names."""
    models = [one for one in matrix["models"] if isinstance(one, dict)]  # type: ignore[attr-defined]
    return [matrix["data"], *(one["data"] for one in models if "data" in one)]  # type: ignore[list-item]


def filters(ratio: float) -> float:
    """FLOPs left in a network of residual blocks whose filters go, but not their streams."""
    return ((1 - ratio) + (1 - ratio) ** 2) / 2


def test_ratios_give_the_pruned_flops_of_the_thesis() -> None:
    (l1,), (fpgm,), (sfp,), (hrank,), (nisp,), (learned,) = (
        ratios("thesis_table5_1")["resnet110", method] for method in ("l1", "fpgm", "sfp", "hrank", "nisp", "learned")
    )
    pruned = [1 - filters(one) for one in (l1, fpgm, sfp, hrank)]
    assert pruned == pytest.approx([0.386, 0.523, 0.408, 0.582], abs=1.5e-3)
    assert (nisp, 1 - (1 - learned) ** 2) == pytest.approx((0.4378, 0.3823), abs=1e-3)
    of_second = ratios("thesis_table5_2")
    (fma,), (learned,) = of_second["resnet56", "fma"], of_second["resnet56", "learned"]
    assert (1 - filters(fma), 1 - (1 - learned) ** 2) == pytest.approx((0.3525, 0.261), abs=1e-3)


def test_ratios_give_the_speedups_of_psp_s_comparison() -> None:
    small, large = ratios("psp_table5_cifar10"), ratios("psp_table5_imagenet")

    def bottleneck(ratio: float) -> float:
        return ((1 - ratio) + 2 * (1 - ratio) ** 2) / 3

    def inner(ratio: float) -> float:
        return (2 * (1 - ratio) + (1 - ratio) ** 2) / 3

    left = {
        2.00: 1 - small["resnet56", "thinet"][0],
        2.11: filters(small["resnet56", "sfp"][0]),
        2.22: (1 - small["densenet40", "slimming"][0]) ** 2,
    }
    assert [1 / one for one in left.values()] == pytest.approx(list(left), abs=5e-3)
    assert 1 / filters(large["resnet18", "sfp"][0]) == pytest.approx(1.72, abs=5e-3)
    assert [1 / inner(large["resnet50", method][0]) for method in ("thinet", "dcp", "channel-pruning")] == (
        pytest.approx([2.25, 2.25, 2.0], abs=5e-3)
    )
    assert [1 / bottleneck(large["resnet50", method][0]) for method in ("spp", "sfp")] == (
        pytest.approx([2.0, 1.72], abs=5e-3)
    )


def test_lenet5_keeps_as_many_neurons_as_in_the_paper() -> None:
    recipe = next(one for one in networks(spec.load(spec.find("roundtrip_table1"))) if one.key.method.startswith("l2"))
    assert recipe.recipe is not None
    widths = {"conv1": 20, "conv2": 50, "fc1": 500}
    gone = counts(widths, recipe.recipe.ratio)
    assert [widths[layer] - gone[layer] for layer in widths] == [19, 37, 214]
    (serene,) = ratios("roundtrip_table1")["lenet5", "serene"]
    assert round(serene * 570) == 570 - (11 + 26 + 113)


def test_the_mini_project_s_sparsity_of_weights() -> None:
    by_magnitude, by_l1, by_thinet = ratios("mini_project_final")["vgg16", "iterative"]
    assert by_magnitude == 0.9666
    assert [1 - (1 - one) ** 2 for one in (by_l1, by_thinet)] == pytest.approx([0.5247, 0.17201], abs=5e-4)
    assert ratios("mini_project_pareto")["vgg16", "thinet"] == TENTHS


def test_the_comparison_names_every_method() -> None:
    named = {method for entry in spec.load(spec.find("methods_digits")).prune for method in entry.method}
    assert named == set(pruning.methods())
