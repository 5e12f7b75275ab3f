"""How figures, tables and the page name and write things, so that all three say the same.

Names of runtimes as their makers write them, numbers with as many digits as they carry, a cell's setting (runtime,
device, threads ...) cut down to what differs in this run. Start with `setting_labels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgeprune.measuring import LatencySummary, RatioSummary
from edgeprune.schema import CellKey, NetworkKey

UNKNOWN = "–"
RUNTIME_NAMES: Mapping[str, str] = MappingProxyType(
    {"onnxruntime": "ONNX Runtime", "tvm": "TVM", "torch": "PyTorch", "native": "Static program", "fpga": "FPGA"}
)
_MODEL_FAMILIES = ("LeNet", "ResNet", "VGG", "DenseNet", "HRNet")
_MODEL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "alexnet": "AlexNet", "deeplabv3": "DeepLabv3", "densenet_bc121": "DenseNet-BC-121",
        "densenet_c63": "DenseNet-C-63", "densenet_c87": "DenseNet-C-87", "mobilenetv2": "MobileNetV2",
        "segnet": "SegNet", "vgg16_imagenet": "VGG-16 (ImageNet)",
    }
)  # fmt: skip

Setting = tuple[str, str, str, int, int, str]


def runtime_name(runtime: str) -> str:
    """A runtime as its makers write it; an unknown one as it is."""
    return RUNTIME_NAMES.get(runtime, runtime)


def in_sentence(label: str) -> str:
    """A label amid a sentence: names of products stay as they are, a static program is the static program."""
    native = RUNTIME_NAMES["native"]
    return label.replace(native, f"the {native.lower()}")


def model_name(model: str) -> str:
    """A model as the papers write it: resnet20 is ResNet-20.

    >>> model_name("resnet20"), model_name("mobilenetv2"), model_name("my_package.nets:build")
    ('ResNet-20', 'MobileNetV2', 'my_package.nets:build')
    """
    for family in _MODEL_FAMILIES:
        rest = model[len(family) :]
        if model.lower().startswith(family.lower()) and rest.isdigit():
            return f"{family}-{rest}"
    return _MODEL_NAMES.get(model, model)


def setting(key: CellKey) -> Setting:
    """Where and how a cell runs, apart from its network."""
    return (key.runtime, key.device, key.target, key.threads, key.batch, key.precision)


def setting_labels(keys: Iterable[CellKey], *, shared_runtime: bool = True) -> dict[Setting, str]:
    """A label for each setting among `keys`, in their order: the runtime, and what else differs between them.

    A target is named where a runtime has several on one device; it is known by the device otherwise. Without
    `shared_runtime` a runtime that all share is not named either.
    """
    settings = list(dict.fromkeys(setting(key) for key in keys))
    differ = [len({one[part] for one in settings}) > 1 for part in range(6)]
    targets = Counter(one[:2] for one in {one[:3] for one in settings})

    def label(one: Setting) -> str:
        runtime, device, target, threads, batch, precision = one
        extra = [
            text
            for text, shown in (
                (device, differ[1]),
                (target, targets[one[:2]] > 1),
                (f"{threads} thread" + "s" * (threads > 1), differ[3]),
                (f"batch {batch}", differ[4]),
                (precision, differ[5]),
            )
            if shown
        ]
        return ", ".join([*([runtime_name(runtime)] if shared_runtime or differ[0] else []), *extra])

    return {one: label(one) for one in settings}


def recipe_label(key: NetworkKey, among: Sequence[NetworkKey]) -> str:
    """A pruning recipe in short: its ratio, with method and seed where they differ `among` the networks shown.

    A dense network has none: "–", or its seed where there are several dense ones.
    """
    alike = [other for other in among if (other.variant == "dense") == (key.variant == "dense")]
    ratios = {other.pruning_ratio for other in alike}
    # 33.3 % and 33 % must not read alike
    digits = next((few for few in range(3) if len({percent(ratio, few) for ratio in ratios}) == len(ratios)), 3)
    parts = [] if key.variant == "dense" else [percent(key.pruning_ratio, digits)]
    if key.variant != "dense" and key.pruning_ratio is None:
        parts = [key.method]  # which says the ratios of the layers
    elif len({other.method for other in alike}) > 1:
        parts.insert(0, key.method)
    if len({other.seed for other in alike}) > 1:
        parts.append(f"seed {key.seed}")
    return " ".join(parts) or UNKNOWN


def short_methods(methods: Iterable[str]) -> dict[str, str]:
    """Methods as a figure has room for them: without the options, where these tell no two of them apart.

    >>> short_methods(["lobster(batch_size=128,epochs=1)", "l1", "l1(align=16)"])
    {'lobster(batch_size=128,epochs=1)': 'lobster', 'l1': 'l1', 'l1(align=16)': 'l1(align=16)'}
    """
    named = list(dict.fromkeys(methods))
    alike = Counter(method.partition("(")[0] for method in named)
    return {method: short if alike[short := method.partition("(")[0]] == 1 else method for method in named}


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction as a percentage; "–" where it is not known.

    >>> percent(0.425), percent(0.9811, 1), percent(-0.001), percent(None)
    ('42 %', '98.1 %', '0 %', '–')
    """
    return UNKNOWN if fraction is None else f"{100 * fraction:z.{digits}f} %"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign.

    >>> points(-0.0139), points(0.002), points(0.0)
    ('−1.4', '+0.2', '0.0')
    """
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def times(ratio: float | None) -> str:
    """A speed-up with two digits after the point, from 10 on with one.

    >>> times(1.6), times(12.34), times(None)
    ('1.60×', '12.3×', '–')
    """
    if ratio is None:
        return UNKNOWN
    return f"{ratio:.1f}×" if ratio >= 9.995 else f"{ratio:.2f}×"


def millions(value: float | None) -> str:
    """Nanoseconds as milliseconds, or MACs in millions, with three digits that count and no exponent.

    >>> millions(812_345.0), millions(34_210_000.0), millions(4_089_184_256), millions(None)
    ('0.812', '34.2', '4,089', '–')
    """
    return UNKNOWN if value is None else _three_digits(value / 1e6)


def interval(summary: LatencySummary | RatioSummary | None, write: Callable[[float], str]) -> str:
    """Both ends of a 95 % interval; "–" where there is none.

    >>> interval(RatioSummary(2.0, 1.5, 2.25, blocks=3), "{:.2f}".format)
    '1.50 – 2.25'
    """
    if summary is None or summary.ci_low is None or summary.ci_high is None:
        return UNKNOWN
    return f"{write(summary.ci_low)} – {write(summary.ci_high)}"


def byte_size(value: float | None) -> str:
    """A size in the unit that fits it, decimal prefixes as storage has them.

    >>> byte_size(1_220_952), byte_size(512), byte_size(None)
    ('1.22 MB', '512 B', '–')
    """
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{_three_digits(value / limit)} {unit}"
    return f"{value:.0f} B"


def fact(name: str, value: Any) -> str:
    """A fact a device told of itself, in words: the unit stands in its name.

    >>> fact("memory_bytes", 8_200_000_000), fact("temp_c", 45.25), fact("pinning", True), fact("board", "")
    ('8.20 GB', '45.2 °C', 'yes', '–')
    """
    if value is None or value in ("", [], {}):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        known = {key: item for key, item in value.items() if item not in (None, "", [], {})}
        return ", ".join(f"{fact_name(key)} {fact(key, item)}" for key, item in known.items())
    if isinstance(value, list | tuple):
        # the number of an item, as in {"core": 3, ...}, is its place in the list
        bare = [_without(item, name.removesuffix("s")) for item in value]
        texts = [fact(name, item) for item in bare]
        # a device with eight equal cores says so once
        return f"{len(texts)} × {texts[0]}" if len(set(texts)) == 1 and len(texts) > 1 else "; ".join(texts)
    if isinstance(value, int | float):
        if name.endswith("_bytes"):
            return byte_size(value)
        if name.endswith("_hz"):
            return f"{value / 1e9:.2f} GHz"
        if name.endswith("_khz"):
            return f"{value / 1e6:.2f} GHz"
        if name.endswith("_c"):
            return f"{value:.1f} °C"
    return str(value)


def fact_name(name: str) -> str:
    """The name of a fact without its unit: memory_bytes is memory."""
    for unit in ("_bytes", "_khz", "_hz", "_c", "_s"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _three_digits(value: float) -> str:
    """Three digits that count, with groups of three from a thousand on: 0.0813, 6.10, 61.0, 1,234."""
    for limit, digits in ((0.01, 5), (0.1, 4), (1.0, 3), (10.0, 2), (100.0, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def _without(item: Any, key: str) -> Any:
    return {name: value for name, value in item.items() if name != key} if isinstance(item, Mapping) else item
