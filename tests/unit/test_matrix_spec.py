"""A matrix's mistakes are told with file, line, wrong value, what is allowed and the nearest right name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgeprune.errors import MatrixError, UserError
from edgeprune.matrix import spec
from edgeprune.matrix.cells import cells, groups, networks, unit

GOOD = """\
name: small
data: digits
models: [lenet5]
prune:
  - {method: [l1, l2], ratio: [0.3, 0.5], seed: [0]}
runtimes: [onnxruntime]
measure: quick
"""


def load(folder: Path, text: str) -> spec.MatrixSpec:
    path = folder / "m.yaml"
    path.write_text(text)
    return spec.load(path)


def test_layers_may_have_ratios_of_their_own_and_methods_be_the_users(tmp_path: Path) -> None:
    text = GOOD.replace(
        "method: [l1, l2], ratio: [0.3, 0.5]", "method: my.code:score, ratio: [{conv1: 0.5, 2: 0}, 0.25]"
    )
    found = [one for one in networks(load(tmp_path, text)) if one.key.variant == "masked"]
    assert [one.key.method for one in found] == ["my.code:score(2:0,conv1:0.5)", "my.code:score"]
    assert [one.key.pruning_ratio for one in found] == [None, 0.25]
    assert [one.recipe.ratio for one in found if one.recipe] == [{"conv1": 0.5, "2": 0.0}, 0.25]
    for wrong in ("{conv1: 1.5}", "{}", "true"):
        with pytest.raises(MatrixError, match=r"m.yaml:5: prune.0..ratio.0.: .* is no pruning ratio"):
            load(tmp_path, GOOD.replace("[0.3, 0.5]", f"[{wrong}]"))


def test_the_quickstart_matrix_is_the_design_s(tmp_path: Path) -> None:
    quickstart = spec.load(spec.find("quickstart"))
    assert [model.name for model in quickstart.models] == ["lenet5", "resnet20"]
    # two networks, each dense, and masked and shrunk at three ratios, on three runtimes; and native once more, emulated
    assert len(cells(quickstart)) == 2 * (1 + 2 * 3) * (3 + 1)


def test_only_programs_on_one_thread_have_cells_on_an_emulated_device(tmp_path: Path) -> None:
    text = GOOD.replace("[onnxruntime]", "[tvm, native]\ndevices: [local, emulated-rpi2]\nthreads: [1, 2]")
    found = cells(load(tmp_path, text))
    here = [key for key in found if not key.is_emulated]
    emulated = [key for key in found if key.is_emulated]
    # dense, and masked and shrunk by two methods at two ratios
    assert len(here) == 9 * 2 * 2
    assert len(emulated) == 9
    assert {(key.runtime, key.target, key.threads) for key in emulated} == {("native", "rpi2", 1)}
    assert {key.target for key in here} == {"host"}


def test_an_emulated_device_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MatrixError, match=r"m.yaml:7: devices.0.: emulated-rpi4 counts .* no runtime makes one"
    ) as raised:
        load(tmp_path, GOOD.replace("[onnxruntime]", "[onnxruntime]\ndevices: [emulated-rpi4]"))
    assert raised.value.hint == "add native to the runtimes"


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("lenet5", "resnet21"), 3, ["unknown model 'resnet21'", "did you mean resnet20?", "lenet5"]),
        (("[l1, l2]", "[l3]"), 5, ["unknown method 'l3'", "did you mean l1?"]),
        (("[onnxruntime]", "[onnx]"), 6, ["unknown runtime 'onnx'", "did you mean onnxruntime?"]),
        (("data: digits", "data: digit"), 2, ["unknown dataset 'digit'", "did you mean digits?"]),
        (("runtimes:", "runtime:"), 6, ["unknown key 'runtime'", "did you mean runtimes?"]),
        (("method:", "metod:"), 5, ["unknown key 'metod'", "did you mean method?"]),
        (("0.5]", "1.0]"), 5, ["1.0", "0 <= ratio < 1"]),
        (("0.5]", "-0.1]"), 5, ["-0.1", "0 <= ratio < 1"]),
        (("0.5]", "half]"), 5, ["'half'", "0 <= ratio < 1"]),
        (("measure: quick", "measure: quik"), 7, ["quik", "did you mean quick?"]),
        (("measure: quick", "measure: {samples: 0}"), 7, ["samples = 0"]),
        (("measure: quick", "devices: [pi]"), 7, ["unknown device 'pi'", "local"]),
        (("measure: quick", "devices: [pi@]"), 7, ["'pi@' is no address of a device", "user@host"]),
        (("measure: quick", "devices: [emulated-rp4]"), 7, ["unknown device", "did you mean emulated-rpi4?"]),
        (("measure: quick", "devices: [{name: a, adress: b}]"), 7, ["unknown key 'adress'", "did you mean address?"]),
        (("measure: quick", "devices: [{name: a, address: pi@b, target: rp4}]"), 7, ["target 'rp4'", "mean rpi4?"]),
        (("measure: quick", "variants: [dense, small]"), 7, ["'small' is not allowed", "shrunk"]),
        (("measure: quick", "threads: [0]"), 7, ["threads", "0", "greater than or equal to 1"]),
        (("measure: quick", "data: digits"), 7, ["'data' is there twice"]),
        (("name: small", "name: ../up"), 1, ["name", "../up"]),
        (("[lenet5]", "[lenet5"), 4, ["not valid YAML"]),
        (("data: digits\n", ""), 1, ["data", "this key is needed"]),
        (("[lenet5]", "[lenet5, lenet5]"), 3, ["'lenet5' is there twice"]),
        (("[lenet5]", "[{name: resnet20, options: {shortcutt: pad}}]"), 3, ["'shortcutt'", "did you mean shortcut?"]),
        (("measure: quick", "threads: [1, 1]"), 7, ["1 is there twice"]),
        (("measure: quick", "shrink: {constant: drop}"), 7, ["unknown key 'constant'", "did you mean constants?"]),
        (("measure: quick", "shrink: {constants: drops}"), 7, ["'drops' is not allowed", "did you mean drop?"]),
        (("measure: quick", "shrink: {align: 12}"), 7, ["12 is not allowed", "allowed: 8, 16"]),
        (("measure: quick", "shrink: gather"), 7, ["shrink is a mapping of keys", "allowed: additions, align"]),
        (("measure: quick", "shrink: drop"), 7, ["shrink", "'drop'"]),
        (("data: digits", "data: {name: cifar10}"), 2, ["no folder is named", "folder: FOLDER"]),
        (("data: digits", "data: {name: cifar10, folder: $NOT_SET}"), 2, ["no folder $NOT_SET", "set that variable"]),
        (("data: digits", "data: {name: digits, folder: /tmp}"), 2, ["digits lies in no folder"]),
        (("data: digits", "data: {name: digits, foldr: /tmp}"), 2, ["unknown key 'foldr'", "did you mean folder?"]),
        (("[lenet5]", "[{name: lenet5, data: digit}]"), 3, ["unknown dataset 'digit'", "did you mean digits?"]),
        (("data: digits", "data: shapes"), 3, ["lenet5 is for classification, shapes for segmentation"]),
        (("{method: [l1, l2]", "{models: lenet, method: [l1]"), 5, ["unknown model of this matrix 'lenet'"]),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, change: tuple[str, str], line: int, words: list[str]) -> None:
    assert change[0] in GOOD
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, GOOD.replace(*change))
    told = f"{caught.value.message} {caught.value.hint}"
    assert f"m.yaml:{line}" in told
    for word in words:
        assert word in told
    assert caught.value.exit_status == 2


def test_what_is_no_matrix_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="no matrix file"):
        spec.find(str(tmp_path / "nothing.yaml"))
    with pytest.raises(MatrixError, match="no matrix file") as caught:
        spec.find("quickstrat")
    assert "quickstart" in (caught.value.hint or "")
    with pytest.raises(MatrixError, match="a matrix is a mapping"):
        load(tmp_path, "- a\n- b\n")
    with pytest.raises(MatrixError, match="cannot be read"):
        spec.load(tmp_path)


def test_a_matrix_without_cells_is_refused(tmp_path: Path) -> None:
    text = "name: none\ndata: digits\nmodels: lenet5\nruntimes: torch\nvariants: [masked]\n"
    with pytest.raises(MatrixError, match=r"m.yaml:5: variants: nothing to measure"):
        load(tmp_path, text)


def test_yaml_that_would_make_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="not valid YAML"):
        load(tmp_path, "name: !!python/object/apply:os.system ['true']\n")


def test_other_devices_are_checked_like_the_matrix_s(tmp_path: Path) -> None:
    small = load(tmp_path, GOOD)
    assert [device.name for device in spec.with_devices(small, ["local", "local"]).devices] == ["local"]
    with pytest.raises(UserError, match="--devices: unknown device 'locl'"):
        spec.with_devices(small, ["locl"])
    with pytest.raises(UserError, match="names no device"):
        spec.with_devices(small, [])


def test_a_network_that_two_recipes_share_is_one_network(tmp_path: Path) -> None:
    small = load(tmp_path, GOOD)
    planned = networks(small)
    assert [network.key.variant for network in planned].count("dense") == 1
    assert len(planned) == 1 + 2 * 2 * 2
    assert len({network.key.network_id for network in planned}) == len(planned)


def test_partners_share_a_unit_and_comparable_cells_a_group(tmp_path: Path) -> None:
    small = load(tmp_path, GOOD.replace("[onnxruntime]", "[onnxruntime, tvm]"))
    (first, second) = groups(cells(small))
    assert {key.runtime for key in first} == {"onnxruntime"}
    assert {key.runtime for key in second} == {"tvm"}
    units: dict[str, list[str]] = {}
    for key in first:
        units.setdefault(unit(key), []).append(key.network.variant)
    assert sorted(map(sorted, units.values())) == [["dense"]] + [["masked", "shrunk"]] * 4


def test_options_and_scope_make_other_names(tmp_path: Path) -> None:
    text = GOOD.replace("[lenet5]", "[{name: resnet20, options: {shortcut: pad}}]").replace(
        "seed: [0]", "scope: [global], batchnorm: keep, seed: [0]"
    )
    labels = {(network.key.model, network.key.method) for network in networks(load(tmp_path, text))}
    assert labels == {
        ("resnet20(shortcut=pad)", ""),
        ("resnet20(shortcut=pad)", "l1-global-bn-keep"),
        ("resnet20(shortcut=pad)", "l2-global-bn-keep"),
    }


def test_options_of_methods_make_other_names_and_wrong_ones_are_told_with_their_line(tmp_path: Path) -> None:
    text = GOOD.replace("[l1, l2], ratio: [0.3, 0.5]", "slimming, ratio: 0.5, options: {penalty: 0.001, epochs: 3}")
    methods = {network.key.method for network in networks(load(tmp_path, text))} - {""}
    assert methods == {"slimming(epochs=3,penalty=0.001)"}
    with pytest.raises(MatrixError, match=r"m.yaml:5: .*unknown option of method slimming 'penalti'"):
        load(tmp_path, text.replace("penalty", "penalti"))


def test_the_options_of_shrinking_are_those_of_shrink(tmp_path: Path) -> None:
    from edgeprune.shrinking import columns, shrinker

    chosen = load(tmp_path, GOOD + "shrink: {constants: drop, method: gradient}\n").shrink
    assert chosen.changes() == {"constants": "drop", "method": "gradient"}
    assert load(tmp_path, GOOD).shrink.changes() == {}
    allowed = {
        "additions": shrinker.ADDITIONS,
        "constants": shrinker.CONSTANTS,
        "method": shrinker.METHODS,
        "align": shrinker.ALIGNMENTS,
        "columns": columns.COLUMNS,
    }
    assert set(spec.ShrinkSpec.model_fields) == set(allowed)
    for option, values in allowed.items():
        choices = get_args(get_args(spec.ShrinkSpec.model_fields[option].annotation)[0])
        assert set(choices) == set(values)


def test_a_model_may_have_its_own_data_and_its_own_recipes(tmp_path: Path) -> None:
    text = GOOD.replace("[lenet5]", "[lenet5, {name: vgg16, data: synthetic}]").replace(
        "  - {method: [l1, l2]",
        "  - {models: vgg16, method: random, ratio: 0.25}\n  - {models: [lenet5], method: [l1, l2]",
    )
    found = load(tmp_path, text)
    keys = [network.key for network in networks(found)]
    assert {(key.model, key.dataset) for key in keys} == {("lenet5", "digits"), ("vgg16", "synthetic")}
    assert {(key.model, key.method) for key in keys if key.method} == {
        ("lenet5", "l1"), ("lenet5", "l2"), ("vgg16", "random"),
    }  # fmt: skip
    assert found.model_dump(mode="json")["data"] == "digits"
    assert all(len({key.network.dataset for key in group}) == 1 for group in groups(cells(found)))


def test_the_same_model_on_two_datasets_is_two_groups(tmp_path: Path) -> None:
    text = GOOD.replace("[lenet5]", "[lenet5, {name: lenet5, data: synthetic}]")
    assert [{key.network.dataset for key in group} for group in groups(cells(load(tmp_path, text)))] == [
        {"digits"}, {"synthetic"},
    ]  # fmt: skip
