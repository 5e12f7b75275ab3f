"""Which networks exist: their papers, input shapes and options, known without loading torch. Start with `entries`.

A new family is one new module with a factory and its line in `entries`. A factory is called as
`factory(num_classes, in_channels, **options)`; its module is imported when a network is built, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a network before it is built.

    Args:
        name: The name in a matrix and on the command line.
        summary: One line for lists.
        paper: Where the network was published.
        input_shape: (channels, height, width) of one input in the paper.
        factory: "module:function" that builds it.
        preset: Arguments that make this member of its family; not for the user to change.
        options: What the user may set, with the defaults.
        task: Classification gives one score a class, segmentation one a class and pixel.
    """

    name: str
    summary: str
    paper: str
    input_shape: tuple[int, int, int]
    factory: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Literal["classification", "segmentation"] = "classification"


_SMALL = (3, 32, 32)
_IMAGENET = (3, 224, 224)
_CITYSCAPES = (3, 512, 1024)


def entries() -> Mapping[str, ModelEntry]:
    """Every network by its name, in the order of lists: by family and size."""
    found = [
        *_lenets(),
        ModelEntry(
            name="alexnet",
            summary="AlexNet for small images: five convolutions, two hidden layers of 4,096",
            paper="Krizhevsky et al. 2012, fitted to CIFAR as in the round-trip paper's table 3",
            input_shape=_SMALL,
            factory="edgeprune.models.alexnet:build",
            options={"image_size": 32},
        ),
        *_vggs(),
        *(_resnet(depth) for depth in (20, 32, 44, 56, 110)),
        *(_resnet_imagenet(depth) for depth in (18, 50, 101)),
        *_densenets(),
        ModelEntry(
            name="mobilenetv2",
            summary="MobileNetV2: 17 inverted residuals; width 1.0, 1.4 or any other",
            paper="Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks",
            input_shape=_IMAGENET,
            factory="edgeprune.models.mobilenet:build",
            options={"width": 1.0},
        ),
        *(_hrnet(width) for width in (18, 48)),
        ModelEntry(
            name="segnet",
            summary="SegNet for segmentation: VGG-16 and its mirror image, joined by the places of maxima",
            paper="Badrinarayanan et al. 2017, SegNet: a deep convolutional encoder-decoder architecture",
            input_shape=_CITYSCAPES,
            factory="edgeprune.models.segnet:build",
            task="segmentation",
        ),
        ModelEntry(
            name="deeplabv3",
            summary="DeepLabv3 of output stride 8 for segmentation, on ResNet-50 or ResNet-101",
            paper="Chen et al. 2017, Rethinking atrous convolution for semantic image segmentation",
            input_shape=_CITYSCAPES,
            factory="edgeprune.models.deeplab:build",
            options={"backbone": "resnet50"},
            task="segmentation",
        ),
    ]
    return MappingProxyType({one.name: one for one in found})


def _lenets() -> list[ModelEntry]:
    return [
        ModelEntry(
            name="lenet5",
            summary="LeNet-5 20-50-500-10: two 5x5 convolutions, two linear layers",
            paper="LeCun et al. 1998, in the 20-50-500-10 form of Caffe that the pruning papers use",
            input_shape=(1, 28, 28),
            factory="edgeprune.models.lenet:build",
            options={"image_size": 28},
        ),
        ModelEntry(
            name="lenet300",
            summary="LeNet-300-100: three linear layers",
            paper="LeCun et al. 1998, in the 300-100-10 form that the pruning papers use",
            input_shape=(1, 28, 28),
            factory="edgeprune.models.lenet:build_300",
            options={"image_size": 28},
        ),
    ]


def _vggs() -> list[ModelEntry]:
    paper = "Simonyan and Zisserman 2015, Very deep convolutional networks, configuration D"
    return [
        ModelEntry(
            name="vgg16",
            summary="VGG-16 for small images: 13 convolutions with batch-norm, one hidden layer of 512",
            paper=paper,
            input_shape=_SMALL,
            factory="edgeprune.models.vgg:build",
            preset={"head": "cifar"},
            options={"batchnorm": True, "image_size": 32},
        ),
        ModelEntry(
            name="vgg16_imagenet",
            summary="VGG-16: 13 convolutions, two hidden layers of 4,096",
            paper=paper,
            input_shape=_IMAGENET,
            factory="edgeprune.models.vgg:build",
            preset={"head": "imagenet"},
            options={"batchnorm": False, "image_size": 224},
        ),
    ]


def _resnet(depth: int) -> ModelEntry:
    return ModelEntry(
        name=f"resnet{depth}",
        summary=f"ResNet-{depth} for small images: 3 stages of {(depth - 2) // 6} blocks, 16-32-64 filters",
        paper="He et al. 2016, Deep residual learning for image recognition, section 4.2",
        input_shape=_SMALL,
        factory="edgeprune.models.resnet:build",
        preset={"depth": depth},
        options={"shortcut": "projection"},
    )


def _resnet_imagenet(depth: int) -> ModelEntry:
    blocks = "basic" if depth == 18 else "bottleneck"
    return ModelEntry(
        name=f"resnet{depth}",
        summary=f"ResNet-{depth} for ImageNet, of {blocks} blocks",
        paper="He et al. 2016, Deep residual learning for image recognition, table 1",
        input_shape=_IMAGENET,
        factory="edgeprune.models.resnet_imagenet:build",
        preset={"depth": depth},
        options={} if depth == 18 else {"stride": "3x3"},
    )


def _densenets() -> list[ModelEntry]:
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("densenet40", "DenseNet-40 for small images, k = 12", {"growth": 12, "blocks": (12,) * 3}),
        ("densenet100", "DenseNet-100 for small images, k = 12", {"growth": 12, "blocks": (32,) * 3}),
        ("densenet_bc121", "DenseNet-BC-121: bottlenecks and compression", {"bottleneck": True}),
        ("densenet_c63", "DenseNet-C-63: DenseNet-BC-121 without bottlenecks", {}),
        (
            "densenet_c87",
            "DenseNet-C-87: as C-63, with 48 layers in block 3",
            {"blocks": (6, 12, 48, 16)},
        ),
    ]
    large = {"growth": 32, "blocks": (6, 12, 24, 16), "compression": True, "large_images": True}
    return [
        ModelEntry(
            name=name,
            summary=summary,
            paper="Huang et al. 2017, Densely connected convolutional networks"
            + ("" if "-C-" not in summary else "; PSP, table 4"),
            input_shape=_SMALL if "growth" in preset else _IMAGENET,
            factory="edgeprune.models.densenet:build",
            preset=preset if "growth" in preset else large | preset,
        )
        for name, summary, preset in rows
    ]


def _hrnet(width: int) -> ModelEntry:
    return ModelEntry(
        name=f"hrnet{width}",
        summary=f"HRNetV2 for segmentation, {width} channels at the highest of four resolutions",
        paper="Sun et al. 2019, High-resolution representations for labeling pixels and regions",
        input_shape=_CITYSCAPES,
        factory="edgeprune.models.hrnet:build",
        preset={"width": width},
        task="segmentation",
    )
