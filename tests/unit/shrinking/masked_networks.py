"""Networks with zeroed filters for the tests of shrinking: fixed residual ones, and random graphs drawn from a seed."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block of the small-image ResNets, with a projection or a zero-padding shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.extra, self.project = stride, outputs - inputs, None
        if shortcut == "projection" and (stride != 1 or inputs != outputs):
            self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.project is not None:
            x = self.project(x)
        elif self.extra or self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        y += x
        return self.relu(y)


class SmallResNet(nn.Module):
    """Three stages of `depth` blocks, 10 classes."""

    def __init__(self, depth: int = 1, width: int = 8, shortcut: str = "projection") -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks, inputs = [], width
        for stage in range(3):
            for place in range(depth):
                stride = 2 if stage and not place else 1
                blocks.append(Block(inputs, width << stage, stride, shortcut))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


def lenet() -> nn.Sequential:
    """A small LeNet-5."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 9, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(9 * 4 * 4, 20), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip


@torch.no_grad()
def mask(model: nn.Module, ratio: float, seed: int, beta: bool) -> nn.Module:
    """Random weights and statistics, and a random part of each convolution's filters zeroed, in place.

    With `beta` the biases and batch normalisations of zeroed filters keep their shifts (case B), else they make zero.
    """
    generator = torch.Generator().manual_seed(seed)
    dead = torch.zeros(0)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            width = module.weight.shape[0]
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / module.weight[0].numel() ** 0.5)
            dead = torch.rand(width, generator=generator) < (ratio if module is not layers[-1] else 0.0)
            module.weight[dead] = 0.0
            if module.bias is not None:
                module.bias.copy_(torch.randn(width, generator=generator) * 0.3)
                module.bias[dead] *= float(beta)
        elif isinstance(module, nn.BatchNorm2d):
            width = module.num_features
            module.running_mean.copy_(torch.randn(width, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(width, generator=generator) + 0.5)
            module.weight.copy_(torch.rand(width, generator=generator) + 0.5)
            module.bias.copy_(torch.randn(width, generator=generator) * 0.3)
            if not beta:
                module.bias[dead] = 0.0
                module.running_mean[dead] = 0.0
    return model.eval()


class Scale(nn.Module):
    """A bare scale and shift a channel."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.scale, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "shift":
            return x + self.shift
        return x * self.scale if self.kind == "scale" else self.shift - self.scale * x


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class RandomNetwork(nn.Module):
    """A random graph of convolutions, norms, activations, pools, pads, additions and concatenations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.steps: list[tuple[str, tuple[object, ...]]] = []
        self.layers = nn.ModuleList()
        self.inputs = draw.choice([1, 3])
        self.widths = [self.inputs]
        self.scales = [1]
        for _ in range(draw.randint(3, 12)):
            getattr(self, "_draw_" + draw.choice(_KINDS))(draw)
        self.head = draw.choice(["pool", "mean", "flatten", "dense"])
        self.size = draw.choice([9, 12])
        if self.head != "dense":
            features = self.widths[-1] * (9 if self.head == "flatten" else 1)
            self.fc1, self.fc2 = nn.Linear(features, 7), nn.Linear(7, 5)

    def _add(self, kind: str, *details: object, width: int | None = None, scale: int | None = None) -> None:
        self.steps.append((kind, details))
        self.widths.append(self.widths[-1] if width is None else width)
        self.scales.append(self.scales[-1] if scale is None else scale)

    def _layer(self, module: nn.Module, width: int | None = None, scale: int | None = None) -> None:
        self.layers.append(module)
        self._add("layer", len(self.layers) - 1, width=width, scale=scale)

    def _draw_conv(self, draw: random.Random) -> None:
        width, kernel = draw.choice([2, 4, 6]), draw.choice([1, 3])
        stride = 2 if self.scales[-1] < 2 and draw.random() < 0.2 else 1
        padding = draw.choice([kernel // 2, "same"]) if stride == 1 else kernel // 2
        mode = draw.choice(["zeros", "zeros", "zeros", "replicate", "circular"])
        bias = draw.random() < 0.5
        conv = nn.Conv2d(self.widths[-1], width, kernel, stride, padding, bias=bias, padding_mode=mode)
        self._layer(conv, width, self.scales[-1] * stride)
        if draw.random() < 0.6:
            self._layer(nn.BatchNorm2d(width, affine=draw.random() < 0.9))
        if draw.random() < 0.6:
            self._draw_act(draw)

    def _draw_bn(self, draw: random.Random) -> None:
        self._layer(nn.BatchNorm2d(self.widths[-1]))

    def _draw_act(self, draw: random.Random) -> None:
        modules = [nn.ReLU(), nn.ReLU(inplace=True), nn.Sigmoid(), nn.Hardswish(), nn.GELU(), nn.LeakyReLU(0.1)]
        if draw.random() < 0.6:
            self._layer(draw.choice(modules))
        else:
            self._add(draw.choice(["relu", "silu", "scale", "shift", "clamp", "relu_"]))

    def _draw_pool(self, draw: random.Random) -> None:
        pools = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
        self._layer(draw.choice(pools))

    def _draw_depthwise(self, draw: random.Random) -> None:
        width, bias = self.widths[-1], draw.random() < 0.5
        multiple = draw.choice([1, 1, 2]) if width <= 6 else 1
        self._layer(nn.Conv2d(width, width * multiple, 3, 1, 1, groups=width, bias=bias), width * multiple)

    def _draw_grouped(self, draw: random.Random) -> None:
        width = self.widths[-1]
        if width % 2 == 0:
            groups, kernel = draw.choice([number for number in (2, 3) if width % number == 0]), draw.choice([1, 3])
            outputs = groups * draw.choice([1, 2, 3])
            self._layer(nn.Conv2d(width, outputs, kernel, 1, kernel // 2, groups=groups), outputs)

    def _draw_transposed(self, draw: random.Random) -> None:
        self._layer(nn.ConvTranspose2d(self.widths[-1], 4, 3, 1, 1, bias=draw.random() < 0.5), 4)

    def _draw_pad(self, draw: random.Random) -> None:
        low, high = draw.choice([(0, 1), (1, 1), (2, 0)])
        self._add("pad", low, high, width=self.widths[-1] + low + high)

    def _draw_border(self, draw: random.Random) -> None:
        self._add("border", draw.choice([0.0, 0.5]))

    def _draw_twice(self, draw: random.Random) -> None:
        width = self.widths[-1]
        self.layers.append(draw.choice([nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)]))
        place = len(self.layers) - 1
        self._add("layer", place)
        if draw.random() < 0.5:
            self._draw_act(draw)
        self._add("layer", place)

    def _earlier(self, draw: random.Random, same_width: bool) -> int | None:
        fitting = [
            place
            for place, (width, scale) in enumerate(zip(self.widths, self.scales, strict=True))
            if scale == self.scales[-1] and (width == self.widths[-1] or not same_width) and place < len(self.steps)
        ]
        return draw.choice(fitting) if fitting else None

    def _draw_add(self, draw: random.Random) -> None:
        place = self._earlier(draw, same_width=True)
        if place is not None:
            self._add(draw.choice(["add", "iadd", "add"]), place)

    def _draw_residual(self, draw: random.Random) -> None:
        start, width = len(self.steps), self.widths[-1]
        self._layer(nn.Conv2d(width, width, 3, 1, 1, bias=draw.random() < 0.5))
        if draw.random() < 0.5:
            self._layer(nn.BatchNorm2d(width))
        self._add("add", start)
        if draw.random() < 0.5:
            self._draw_act(draw)

    def _draw_gate(self, draw: random.Random) -> None:
        width = self.widths[-1]
        self.layers.append(nn.Conv2d(width, draw.choice([1, width]), 1))
        self._add(draw.choice(["gate", "map"]), len(self.layers) - 1)

    def _draw_product(self, draw: random.Random) -> None:
        place = self._earlier(draw, same_width=True)
        if place is not None:
            self._add(draw.choice(["mul", "sub"]), place)

    def _draw_part(self, draw: random.Random) -> None:
        width = self.widths[-1]
        low = draw.randrange(width)
        high = draw.randint(low + 1, width)
        if draw.random() < 0.5:
            self._add("part", low, high, width=high - low)
        elif width % 2 == 0:
            self._add(draw.choice(["chunk", "halves"]), width=width // 2)

    def _draw_shuffle(self, draw: random.Random) -> None:
        if self.widths[-1] % 2 == 0:
            self._add(draw.choice(["shuffle", "written shuffle", "swap"]))

    def _draw_norm(self, draw: random.Random) -> None:
        width = self.widths[-1]
        groups = draw.choice([number for number in range(1, width + 1) if width % number == 0])
        norms = [nn.GroupNorm(groups, width), nn.InstanceNorm2d(width, affine=True)]
        self._layer(draw.choice([*norms, nn.PReLU(), nn.PReLU(width)]))

    def _draw_parameter(self, draw: random.Random) -> None:
        self.layers.append(Scale(self.widths[-1], draw.choice(["scale", "shift", "both"])))
        self._add("layer", len(self.layers) - 1)

    def _draw_cat(self, draw: random.Random) -> None:
        place = self._earlier(draw, same_width=False)
        if place is not None and self.widths[-1] + self.widths[place] < 16:
            self._add("cat", place, width=self.widths[-1] + self.widths[place])

    def _draw_opaque(self, draw: random.Random) -> None:
        self._add("opaque")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for kind, details in self.steps:
            values.append(self._step(kind, details, values))
        x = values[-1]
        if self.head == "dense":
            return x
        if self.head == "mean":
            x = x.mean((2, 3))
        else:
            x = F.adaptive_avg_pool2d(x, 3 if self.head == "flatten" else 1)
            x = torch.flatten(x, 1)
        return self.fc2(F.relu(self.fc1(x)))

    def _step(self, kind: str, details: tuple[object, ...], values: list[torch.Tensor]) -> torch.Tensor:
        x = values[-1]
        if kind == "layer":
            return self.layers[details[0]](x)
        if kind in ("add", "iadd", "cat"):
            other = values[details[0]]
            if kind == "iadd":
                x = x * 1.0  # a tensor of its own, as after a convolution
                x += other
                return x
            return x + other if kind == "add" else torch.cat([other, x], 1)
        if kind in ("mul", "sub"):
            return x * values[details[0]] if kind == "mul" else x - values[details[0]]
        if kind in ("gate", "map"):
            gate = self.layers[details[0]](x if kind == "map" else F.adaptive_avg_pool2d(x, 1))
            return torch.sigmoid(gate) * x
        if kind == "part":
            return x[:, details[0] : details[1]]
        if kind == "pad":
            return F.pad(x, (0, 0, 0, 0, *details))
        if kind == "border":
            return F.pad(x, (1, 1, 1, 1), value=details[0])[:, :, 1:-1, 1:-1]
        return {
            "relu": F.relu,
            "silu": F.silu,
            "scale": lambda t: t * 0.5,
            "shift": lambda t: t + 0.25,
            "clamp": lambda t: t.clamp(-1.0, 1.0),
            "relu_": lambda t: F.relu(t + 0.1, inplace=True),
            "chunk": lambda t: t.chunk(2, 1)[1],
            "halves": lambda t: t[:, ::2] - t.split(t.shape[1] // 2, dim=1)[0],
            "shuffle": lambda t: F.channel_shuffle(t, 2),
            "written shuffle": _shuffle,
            "swap": lambda t: torch.cat([t[:, t.shape[1] // 2 :], t[:, : t.shape[1] // 2]], 1),
            "opaque": lambda t: F.softmax(t, 1),
        }[kind](x)


_KINDS = (
    "conv conv conv conv conv bn act pool depthwise grouped transposed pad border twice add add residual residual cat "
    "gate gate product part part shuffle parameter norm opaque"
).split()


@torch.no_grad()
def mask_randomly(model: nn.Module, seed: int) -> nn.Module:
    """Random weights, and zeros of every kind: filters, columns, gammas, whole layers, with and without shifts."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    ratio = draw.choice([0.0, 0.3, 0.5, 0.7, 0.9])
    shifts = draw.choice([0.0, 0.5, 1.0])

    def some(width: int, part: float) -> torch.Tensor:
        return torch.rand(width, generator=generator) < part

    def numbers(width: int) -> torch.Tensor:
        return torch.randn(width, generator=generator, dtype=torch.float64) * 0.4 * ~some(width, 1 - shifts)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = module.weight
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
            if isinstance(module, nn.ConvTranspose2d):
                weight = weight.transpose(0, 1)
            weight[some(weight.shape[0], ratio)] = 0.0
            if draw.random() < 0.2:
                weight[:, some(weight.shape[1], ratio)] = 0.0
            if draw.random() < 0.05:
                weight.zero_()
            if module.bias is not None:
                module.bias.copy_(numbers(len(module.bias)))
        elif isinstance(module, nn.GroupNorm | nn.InstanceNorm2d) and module.affine:
            module.weight[some(len(module.weight), ratio * draw.choice([0.0, 1.0]))] = 0.0
            # a normalised constant is nothing but rounding: without a shift it could be all of the output
            module.bias.copy_(numbers(len(module.bias)) + 0.1)
        elif isinstance(module, nn.PReLU):
            module.weight.copy_(numbers(module.num_parameters))
        elif isinstance(module, Scale):
            for parameter in (module.scale, module.shift):
                parameter.copy_(numbers(parameter.numel()).view_as(parameter))
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(numbers(module.num_features))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if module.affine:
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.weight[some(module.num_features, draw.choice([0.0, ratio]))] = 0.0
                module.bias.copy_(numbers(module.num_features))
    return model.double().eval()
