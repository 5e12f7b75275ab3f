"""Picture folders, Cityscapes and shapes: layouts, splits, labels that move with their images, damaged files named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from edgeprune import datasets
from edgeprune.datasets.cityscapes import CLASSES, LABEL_IDS
from edgeprune.errors import DatasetError
from tests.unit.dataset_files import write_picture, write_scene

MEAN = torch.tensor((0.485, 0.456, 0.406))
DEVIATION = torch.tensor((0.229, 0.224, 0.225))
COLOURS = {"ant": (250, 10, 10), "bee": (10, 250, 10), "cat": (10, 10, 250)}


def colour_of(image: torch.Tensor) -> torch.Tensor:
    return (image.mean((1, 2)) * DEVIATION + MEAN) * 255


def imagenet(folder: Path, train: int = 10, val: int = 2) -> Path:
    for name, colour in COLOURS.items():
        for number in range(train):
            write_picture(folder / "train" / name / f"{number:02}.png", colour)
        for number in range(val):
            write_picture(folder / "val" / name / f"{number:02}.jpg", colour)
    return folder


def test_imagenet_s_layout(tmp_path: Path) -> None:
    read = datasets.load("image_folder", (3, 24, 32), folder=imagenet(tmp_path))
    assert read.classes == ("ant", "bee", "cat")
    assert read.num_classes == 3
    assert [len(split) for split in (read.train, read.validation, read.test)] == [27, 3, 6]
    for split in (read.train, read.validation, read.test):
        for place in range(len(split)):
            image, label = split[place]
            assert image.shape == (3, 24, 32)
            wanted = torch.tensor(COLOURS[read.classes[int(label)]], dtype=torch.float32)
            assert (colour_of(image) - wanted).abs().max() < 4  # JPEG's own error
    assert (colour_of(read.train.augmented(0, 5)[0]) - torch.tensor(COLOURS["ant"])).abs().max() < 1
    assert datasets.load("image_folder", (1, 24, 32), folder=tmp_path).test[0][0].shape == (1, 24, 32)


def test_a_folder_of_classes_alone_is_dealt_by_tens(tmp_path: Path) -> None:
    for name, colour in COLOURS.items():
        for number in range(20):
            write_picture(tmp_path / name / f"{number:02}.png", colour)
    read = datasets.load("image_folder", (3, 16, 16), folder=tmp_path)
    assert [len(split) for split in (read.train, read.validation, read.test)] == [42, 6, 12]
    paths = [path for split in (read.train, read.validation, read.test) for path, _ in split.pictures]
    assert len(set(paths)) == 60


def test_a_score_sees_the_middle_and_training_sees_parts(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 255, 255), (32, 0, 64, 64))
    for split in ("train", "val"):
        (tmp_path / split / "half").mkdir(parents=True)
        picture.save(tmp_path / split / "half" / "one.png")
    read = datasets.load("image_folder", (3, 56, 56), folder=tmp_path)
    image = (read.test[0][0] * DEVIATION.view(3, 1, 1) + MEAN.view(3, 1, 1)).clamp(0, 1)
    # the middle 7/8 of the picture: black left of its centre, white right of it
    assert image[:, :, :27].max() < 0.01
    assert image[:, :, 29:].min() > 0.99
    shares = {round(float(read.train.augmented(0, seed)[0].mean()), 2) for seed in range(20)}
    assert len(shares) > 10
    assert torch.equal(read.train.augmented(0, 3)[0], read.train.augmented(0, 3)[0])


def test_folders_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no folders"):
        datasets.load("image_folder", (3, 16, 16), folder=tmp_path)
    imagenet(tmp_path, train=1, val=1)
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(DatasetError, match="differ: dog"):
        datasets.load("image_folder", (3, 16, 16), folder=tmp_path)
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(DatasetError, match="dog: a class without pictures"):
        datasets.load("image_folder", (3, 16, 16), folder=tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_picture_is_named(tmp_path: Path, damage: str) -> None:
    path = imagenet(tmp_path) / "val" / "bee" / "01.jpg"
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"<html>not here</html>"}[damage])
    read = datasets.load("image_folder", (3, 16, 16), folder=tmp_path)
    with pytest.raises(DatasetError, match=r"val/bee/01\.jpg: not a readable picture"):
        [read.test[place] for place in range(len(read.test))]


def cityscapes(folder: Path) -> Path:
    for number in range(12):
        write_scene(folder, "train", "ulm", f"ulm_{number:02}", LABEL_IDS[number])
    for number, label_id in enumerate(LABEL_IDS):
        write_scene(folder, "val", "bonn", f"bonn_{number:02}", label_id)
    return folder


def test_cityscapes_layout_and_classes(tmp_path: Path) -> None:
    read = datasets.load("cityscapes", (3, 32, 64), folder=cityscapes(tmp_path))
    assert [len(split) for split in (read.train, read.validation, read.test)] == [11, 1, 19]
    for place in range(19):
        image, labels = read.test[place]
        assert image.shape == (3, 32, 64)
        assert labels.shape == (32, 64)
        assert (labels[:, :32] == place).all()
        assert (labels[:, 32:] == -100).all()
    assert len(CLASSES) == 19
    assert CLASSES[LABEL_IDS.index(24)] == "person"
    assert CLASSES[LABEL_IDS.index(26)] == "car"
    assert read.validation[0][1][0, 0] == 9


def test_cityscapes_labels_move_with_their_image(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_scene(tmp_path, split, "ulm", "ulm_00", 26)
        image = tmp_path / "leftImg8bit" / split / "ulm" / "ulm_00_leftImg8bit.png"
        picture = Image.new("RGB", (64, 32), (0, 0, 0))
        picture.paste((255, 255, 255), (0, 0, 32, 32))  # white where the label is scored
        picture.save(image)
    read = datasets.load("cityscapes", (3, 16, 32), folder=tmp_path)
    shares = set()
    for seed in range(30):
        seen, labels = read.train.augmented(0, seed)
        white = seen.mean(0) > 0.2
        shares.add(float(white.float().mean()))
        assert (white == (labels == 13)).float().mean() > 0.93  # but for the blurred edge
    assert len(shares) > 5


def test_cityscapes_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images in"):
        datasets.load("cityscapes", (3, 16, 32), folder=tmp_path)
    cityscapes(tmp_path)
    labels = tmp_path / "gtFine" / "val" / "bonn" / "bonn_03_gtFine_labelIds.png"
    Image.new("L", (64, 32), 77).save(labels)
    read = datasets.load("cityscapes", (3, 16, 32), folder=tmp_path)
    with pytest.raises(DatasetError, match=r"bonn_03_gtFine_labelIds\.png: label 77"):
        read.test[3]
    Image.new("L", (32, 32), 7).save(labels)
    with pytest.raises(DatasetError, match="of 32x32 pixels for an image of 64x32"):
        read.test[3]
    labels.unlink()
    with pytest.raises(DatasetError, match=r"bonn_03_gtFine_labelIds\.png: missing"):
        datasets.load("cityscapes", (3, 16, 32), folder=tmp_path)


def test_shapes_follow_their_seed_and_cover_what_their_labels_say() -> None:
    first, again, other = (datasets.load("shapes", (3, 48, 64), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test[4][0], again.test[4][0])
    assert not torch.equal(first.test[4][0], other.test[4][0])
    image, labels = first.train[7]
    assert image.shape == (3, 48, 64)
    assert labels.shape == (48, 64)
    for label in range(1, 4):
        inside = image[:, labels == label]
        # one colour under noise of a quarter of a unit; the ground's is none
        assert inside.numel() == 0 or float(inside.std(1).max()) < 0.4
    assert abs(float(image[:, labels == 0].mean())) < 0.1
    assert {int(one) for place in range(20) for one in first.train[place][1].unique()} == {0, 1, 2, 3}


def test_a_copy_of_a_folder_is_the_same_data_and_another_file_is_not(tmp_path: Path) -> None:
    first, second = imagenet(tmp_path / "a"), imagenet(tmp_path / "b")
    assert datasets.contents(first) == datasets.contents(second)
    write_picture(tmp_path / "b" / "train" / "ant" / "more.png", (0, 0, 0))
    datasets.contents.cache_clear()
    assert datasets.contents(first) != datasets.contents(second)


def test_links_are_part_of_a_copy_of_a_dataset_wherever_they_lead(tmp_path: Path) -> None:
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    (plain / "cats").mkdir(parents=True)
    (plain / "cats" / "one.png").write_bytes(b"12")
    linked.mkdir()
    (linked / "cats").symlink_to(plain / "cats")
    assert datasets.contents(linked) == datasets.contents(plain)
    datasets.contents.cache_clear()
    (linked / "all").symlink_to(linked)
    assert datasets.contents(linked) == datasets.contents(plain)
    datasets.contents.cache_clear()
    (linked / "lost.png").symlink_to(tmp_path / "nowhere")
    assert datasets.contents(linked) != datasets.contents(plain)
