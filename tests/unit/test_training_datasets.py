"""Training on every kind of dataset: classes and shape come from the data, and workers change nothing but the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune import datasets
from edgeprune.errors import DatasetError
from edgeprune.training import Schedule, accuracy, batches, train
from tests.unit.dataset_files import write_cifar, write_picture, write_scene

SHAPE = (3, 16, 32)
SHORT = Schedule(epochs=1, batch_size=8)


def written(name: str, folder: Path) -> datasets.Dataset:
    if name.startswith("cifar"):
        write_cifar(folder, int(name.removeprefix("cifar")), "binary", packed=False)
    elif name == "image_folder":
        for label, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
            for number in range(20):
                write_picture(folder / f"class{label}" / f"{number:02}.png", colour)
    elif name == "cityscapes":
        for number in range(10):
            write_scene(folder, "train", "ulm", f"ulm_{number}", 7 + number % 2)
        write_scene(folder, "val", "bonn", "bonn_0", 7)
    return datasets.load(name, SHAPE, folder=folder if datasets.entry(name).needs_folder else None)


def small(dataset: datasets.Dataset) -> nn.Module:
    """One convolution and scores: of the image, or of each pixel."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(dataset.input_shape[0], 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()]
    if datasets.entry(dataset.name).task == "segmentation":
        return nn.Sequential(*layers, nn.Conv2d(8, dataset.num_classes, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, dataset.num_classes))


@pytest.mark.parametrize("name", datasets.names())
def test_every_dataset_trains(name: str, tmp_path: Path) -> None:
    dataset = written(name, tmp_path)
    result = train(small(dataset), dataset, SHORT)
    assert result.epochs_run == 1
    assert 0.0 <= result.validation_accuracy <= 1.0


def test_what_can_be_learnt_is_learnt(tmp_path: Path) -> None:
    for name in ("image_folder", "shapes"):
        dataset = written(name, tmp_path / name)
        model = small(dataset)
        train(model, dataset, Schedule(epochs=4, batch_size=6))
        images, labels = zip(*(dataset.test[place] for place in range(len(dataset.test))), strict=True)
        with torch.inference_mode():
            right = model(torch.stack(images)).argmax(1) == torch.stack(labels)
        assert float(right.float().mean()) == pytest.approx(accuracy(model, dataset.test))
        # colours tell the folders apart; of the shapes, ground from everything else
        assert float(right.float().mean()) > {"image_folder": 0.9, "shapes": 0.7}[name]


@pytest.mark.parametrize("name", ["image_folder", "cityscapes"])
def test_processes_that_read_files_do_not_change_the_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = written(name, tmp_path)
    weights = []
    for processes in (0, 2):
        monkeypatch.setattr(batches, "workers", lambda reads_files, count=processes: count if reads_files else 0)
        model = small(dataset)
        state = torch.random.get_rng_state()
        train(model, dataset, SHORT)
        assert torch.equal(torch.random.get_rng_state(), state)
        weights.append(model[0].weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_damaged_file_is_named_whoever_reads_it(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = written("image_folder", tmp_path)
    path, _ = dataset.train.pictures[5]
    path.write_bytes(path.read_bytes()[:20])
    monkeypatch.setattr(batches, "workers", lambda reads_files: processes)
    with pytest.raises(DatasetError) as caught:
        train(small(dataset), dataset, SHORT)
    assert caught.value.message.startswith(f"{path}: not a readable picture")
    assert "fetch the file again" in (caught.value.hint or "")


def test_pixels_that_are_not_scored_count_neither_way() -> None:
    labels = torch.tensor([[[0, 1], [-100, -100]]])
    split = torch.utils.data.TensorDataset(torch.zeros(1, 3, 2, 2), labels)

    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.sum(1) + 1, x.sum(1)], 1)

    assert accuracy(Zero(), split) == 0.5
