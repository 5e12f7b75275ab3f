"""The stages that make a network's files: what a shrunk network is held to, and what its options decide."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune import pruning, shrinking, training
from edgeprune.errors import ResultsError
from edgeprune.matrix import spec
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.cells import Recipe, cells
from edgeprune.matrix.manifest import open_manifest
from edgeprune.matrix.sources import dataset_of, first_images, load_weights, weights_ingredients
from edgeprune.matrix.stages import NETWORK_FILE, REFERENCE_FILE, prepare
from edgeprune.matrix.tasks import NetworkJob, Task, task_from_json, task_to_json

TINY = """\
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
RECIPE = Recipe("l1", "local", 0.5, 0, "keep")  # shifts of pruned filters stay


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetworkJob:
    (tmp_path / "tiny_for_stages.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = spec.ModelSpec(name="tiny_for_stages:build", input_shape=(1, 8, 8))
    return NetworkJob(model, spec.DataSpec(name="digits"), 0, "shrunk", RECIPE, {"epochs": 1}, {"epochs": 1})


def silent(_text: str, _fraction: float) -> None:
    pass


def test_a_network_without_its_constants_is_held_to_its_own_numbers(tmp_path: Path, job: NetworkJob) -> None:
    cache = Cache(tmp_path / "cache")
    dropping = replace(job, shrink={"constants": "drop", "method": "gradient"})
    folders = [prepare(cache, Task("network", one), silent) for one in (replace(job, variant="masked"), job, dropping)]
    masked_facts, exact_facts, facts = (json.loads((folder / NETWORK_FILE).read_text()) for folder in folders)
    example = first_images(dataset_of(job), 1)
    masked = load_weights(job, prepare(cache, job.origin(), silent)).eval()
    shrunk = shrinking.shrink(masked, example, constants="drop").model
    with torch.no_grad():
        own, other = shrunk(example).numpy(), masked(example).numpy()
    assert np.abs(own - other).max() > 1e-3
    np.testing.assert_allclose(np.load(folders[2] / REFERENCE_FILE), own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.load(folders[1] / REFERENCE_FILE), other, rtol=1e-5, atol=1e-6)
    assert facts["accuracy"] == training.accuracy(shrunk, dataset_of(job).test)
    assert exact_facts["accuracy"] == pytest.approx(masked_facts["accuracy"], abs=1e-3)
    assert any("constants of removed filters were dropped" in note for note in facts["notes"])
    assert facts["params"] < exact_facts["params"] < masked_facts["params"]


def test_options_of_shrinking_belong_to_shrunk_networks_alone(job: NetworkJob) -> None:
    dropping = replace(job, shrink={"constants": "drop"})
    assert dropping.origin() == job.origin()
    assert dropping.dense() == job.dense()
    task = Task("network", dropping, 2)
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_a_folder_holds_one_way_to_shrink(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "name: small\ndata: digits\nmodels: lenet5\nruntimes: onnxruntime\nprune: [{method: l1, ratio: 0.5}]\n"
    )
    exact = spec.load(path)
    path.write_text(path.read_text() + "shrink: {constants: drop}\n")
    dropping = spec.load(path)
    first = open_manifest(tmp_path, exact, cells(exact))
    with pytest.raises(ResultsError, match="drop"):
        open_manifest(tmp_path, dropping, cells(dropping))
    # a folder from before the key existed goes on as what it was
    stored = tmp_path / "manifest.json"
    older = json.loads(stored.read_text())
    del older["matrix"]["shrink"]
    stored.write_text(json.dumps(older))
    assert open_manifest(tmp_path, exact, cells(exact)).run_id == first.run_id
    stored.write_text(json.dumps(older))
    with pytest.raises(ResultsError, match="drop"):
        open_manifest(tmp_path, dropping, cells(dropping))


def test_a_method_that_mends_gets_the_matrix_s_images(tmp_path: Path, job: NetworkJob) -> None:
    recipe = Recipe("thinet", "local", {"0": 0.5}, 0, "mask", {"positions": 2})
    sent = task_from_json(json.loads(json.dumps(task_to_json(Task("recipe", replace(job, recipe=recipe))))))
    folder = prepare(Cache(tmp_path / "cache"), sent, silent)
    masks = pruning.Masks.load(folder / "masks.safetensors")
    assert [int((~masks[name]).sum()) for name in ("0", "1", "3")] == [4, 4, 0]
    assert masks.facts["options"] == {"positions": 2}
    assert set(masks.replaced) == {"3.weight"}
    assert not load_weights(job, folder).get_submodule("0").weight[~masks["0"]].any()


def test_a_changed_criterion_of_the_user_s_is_another_recipe(tmp_path: Path, job: NetworkJob) -> None:
    own = replace(job, recipe=replace(RECIPE, method="own_for_stages:score"))
    keys = []
    for power in (1, 2, 1):
        (tmp_path / "own_for_stages.py").write_text(f"def score(layer, context):\n    return layer.bias ** {power}\n")
        keys.append(json.dumps(weights_ingredients(own)))
    assert keys[0] == keys[2] != keys[1]


def test_a_copied_project_takes_the_same_networks(
    tmp_path: Path, job: NetworkJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form, name in (("file", "net_beside"), ("package", "net_within")):
        for copy in ("here", "there"):
            place = tmp_path / form / copy
            (place / name if form == "package" else place).mkdir(parents=True)
            (place / name / "__init__.py" if form == "package" else place / f"{name}.py").write_text(TINY)
    own = {
        form: replace(job, model=job.model.model_copy(update={"name": f"{name}:build"}))
        for form, name in (("file", "net_beside"), ("package", "net_within"))
    }
    for form, one in own.items():
        keys = []
        for copy in ("here", "there"):
            monkeypatch.chdir(tmp_path / form / copy)
            keys.append(weights_ingredients(one))
        assert keys[0] == keys[1]
        (source,) = (tmp_path / form / "there").rglob("*.py")
        source.write_text(TINY.replace("8, 8, 3", "8, 8, 5"))
        assert weights_ingredients(one) != keys[0]
        source.write_text(TINY)
        source.rename(source.with_name("renamed.py"))
        assert weights_ingredients(one) != keys[0]


def test_an_interrupted_training_method_goes_on_and_leaves_nothing(tmp_path: Path, job: NetworkJob) -> None:
    recipe = Recipe("slimming", "global", 0.5, 0, "mask", {"epochs": 2, "rounds": 1, "retrain_epochs": 1})
    trained = replace(job, recipe=recipe, variant="masked")
    assert task_from_json(task_to_json(Task("recipe", trained))).job == trained

    def interrupt(text: str, _fraction: float) -> None:
        if text.startswith("epoch 2/2"):
            raise KeyboardInterrupt

    cache = Cache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        prepare(cache, Task("recipe", trained), interrupt)
    unfinished = cache.unfinished("recipe", weights_ingredients(trained))
    assert [file.name for file in unfinished.iterdir()] == ["sparsity.state"]
    resumed = prepare(cache, Task("recipe", trained), silent)
    assert not unfinished.exists()
    whole = prepare(Cache(tmp_path / "other"), Task("recipe", trained), silent)
    for name in ("masks.safetensors", "weights.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_without_epochs_of_fine_tuning_a_network_is_as_it_was_pruned(tmp_path: Path, job: NetworkJob) -> None:
    cache = Cache(tmp_path / "cache")
    as_pruned = replace(job, finetune={"epochs": 0})
    dense = load_weights(job, prepare(cache, Task("dense", job.dense()), silent))
    masks = pruning.prune(dense, first_images(dataset_of(job), 1), "l1", 0.5, batchnorm="keep")
    expected = masks.apply(dense).state_dict()
    tuned, left = (load_weights(job, prepare(cache, one.origin(), silent)).state_dict() for one in (job, as_pruned))
    assert all(torch.equal(left[name], value) for name, value in expected.items())
    assert not torch.equal(tuned["0.weight"], left["0.weight"])
