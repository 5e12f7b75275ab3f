"""CIFAR from small files of its true forms: what is read, what is refused, and what an archive cannot make it run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune import datasets
from edgeprune.errors import DatasetError
from tests.unit.dataset_files import CIFAR10_FILES, NAMES, cifar_content, python_file, write_cifar

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_form_gives_the_images_that_were_written(tmp_path: Path, classes: int, form: str, packed: bool) -> None:
    write_cifar(tmp_path, classes, form, packed)
    read = datasets.load(f"cifar{classes}", SHAPE, folder=tmp_path)
    written = cifar_content(classes)
    train = np.concatenate([pixels for name, (pixels, _) in written.items() if not name.startswith("test")])
    test_pixels, test_labels = next(value for name, value in written.items() if name.startswith("test"))
    assert read.num_classes == classes
    assert read.classes == tuple(NAMES[classes])
    assert (len(read.train) + len(read.validation), len(read.test)) == (len(train), len(test_pixels))
    assert [int(read.test[place][1]) for place in range(len(read.test))] == test_labels.tolist()

    # the standardisation undone by what the training split says, the same for every split
    kept = np.stack([pixels.reshape(3, -1) for pixels in read.train.pixels.numpy()]) / 255.0
    mean, deviation = kept.mean((0, 2)), kept.std((0, 2))
    image, _ = read.test[3]
    pixels = image.numpy().reshape(3, -1) * deviation[:, None] + mean[:, None]
    assert np.abs(pixels.ravel() * 255 - test_pixels[3]).max() < 1e-3


def test_every_tenth_image_of_a_class_is_for_validation(tmp_path: Path) -> None:
    write_cifar(tmp_path, 10, "binary", packed=False)
    read = datasets.load("cifar10", SHAPE, folder=tmp_path)
    assert sum(CIFAR10_FILES.values()) - CIFAR10_FILES["test_batch"] == 100
    labels = [sorted(int(label) for label in split.labels) for split in (read.train, read.validation)]
    assert labels == [sorted(list(range(10)) * 9), list(range(10))]


def test_images_fit_other_models(tmp_path: Path) -> None:
    write_cifar(tmp_path, 10, "binary", packed=False)
    colour = datasets.load("cifar10", SHAPE, folder=tmp_path).test[0][0]
    grey = datasets.load("cifar10", (1, 32, 32), folder=tmp_path).test[0][0]
    assert torch.allclose(grey[0], 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2], atol=1e-6)
    assert datasets.load("cifar10", (3, 28, 40), folder=tmp_path).test[0][0].shape == (3, 28, 40)


def test_training_pads_crops_and_mirrors(tmp_path: Path) -> None:
    write_cifar(tmp_path, 10, "binary", packed=False)
    train = datasets.load("cifar10", SHAPE, folder=tmp_path).train
    image, label = train[0]
    padded = torch.zeros(3, 40, 40)
    padded[:, 4:36, 4:36] = image
    crops = [
        (row, column, mirrored, crop.flip(-1) if mirrored else crop)
        for row in range(9)
        for column in range(9)
        for crop in [padded[:, row : row + 32, column : column + 32]]
        for mirrored in (False, True)
    ]
    seen = set()
    for seed in range(60):
        changed, same = train.augmented(0, seed)
        assert same == label
        assert torch.equal(changed, train.augmented(0, seed)[0])
        (found,) = [place[:3] for place in crops if torch.equal(place[3], changed)]
        seen.add(found)
    assert len(seen) > 40
    assert {mirrored for _, _, mirrored in seen} == {True, False}


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    write_cifar(tmp_path, 10, "python", packed=False)
    victim = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (victim,))

    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(pickle.dumps({"data": Evil()}, 2))
    with pytest.raises(DatasetError, match="data_batch_3: not a file of CIFAR's Python archive: it names "):
        datasets.load("cifar10", SHAPE, folder=tmp_path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "data_batch_2: not a file of CIFAR's Python archive"),
        (python_file({"data": np.zeros((2, 3072), np.uint8)})[:-400], "data_batch_2: not a file"),
        (python_file({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}), "something else than bytes"),
        (python_file({"data": np.zeros((2, 3000), np.uint8), "labels": [0, 1]}), "no images of 3072 bytes"),
        (python_file({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "no label for each image"),
        (python_file({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "image 1: label 10 of 10 classes"),
        (pickle.dumps([1, 2], 2), "holds a list, not a dictionary"),
    ],
)
def test_a_damaged_python_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    write_cifar(tmp_path, 10, "python", packed=False)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        datasets.load("cifar10", SHAPE, folder=tmp_path)


def test_a_damaged_binary_file_or_archive_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path, 100, "binary", packed=False)
    test_file = tmp_path / "cifar-100-binary" / "test.bin"
    content = test_file.read_bytes()
    test_file.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"test\.bin is 307399 bytes, no whole number of records of 3074"):
        datasets.load("cifar100", SHAPE, folder=tmp_path)
    test_file.write_bytes(content[:3075] + b"\xff" + content[3076:])
    with pytest.raises(DatasetError, match=r"test\.bin, image 1: label 255 of 100 classes"):
        datasets.load("cifar100", SHAPE, folder=tmp_path)

    packed = tmp_path / "packed"
    write_cifar(packed, 10, "binary", packed=True)
    archive = packed / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DatasetError, match=r"cifar-10-binary\.tar\.gz: damaged"):
        datasets.load("cifar10", SHAPE, folder=packed)


def test_a_folder_without_any_form_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds none of its forms") as caught:
        datasets.load("cifar10", SHAPE, folder=tmp_path)
    assert "cifar-10-python.tar.gz" in (caught.value.hint or "")
    with pytest.raises(DatasetError, match="no folder is named"):
        datasets.load("cifar10", SHAPE)
    with pytest.raises(DatasetError, match=r"no folder .*nothing"):
        datasets.load("cifar10", SHAPE, folder=tmp_path / "nothing")
