"""Arguments of forward that the example leaves out: their defaults hold, and nobody can give others later."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeprune.shrinking import shrink


class Optional(nn.Module):
    """A layer whose output may be scaled, and one that a flag leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor, scale: Tensor | None = None, way: str = "second", *, flip: bool = False) -> Tensor:
        x = torch.relu(self.first(x))
        if scale is not None:
            x = x * scale
        x = self.second(x) if way == "second" else self.other(x)
        return x.flip(-1) if flip else x


def masked() -> Optional:
    torch.manual_seed(0)
    model = Optional().eval()
    with torch.no_grad():
        model.first.weight[::2] = 0.0
    return model.double()


def test_defaults_decide_the_way() -> None:
    model, x = masked(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    shrunk = shrink(model, x)
    torch.testing.assert_close(shrunk.model(x), model(x), rtol=0, atol=1e-12)
    assert shrunk.model.get_submodule("first").out_channels == 3
    assert not any(name.startswith("other") for name, _ in shrunk.model.named_modules())
    assert any(note.endswith("no inputs: scale, way, flip") for note in shrunk.report.notes)
    with pytest.raises(TypeError):
        shrunk.model(x, torch.ones(1, dtype=torch.float64))


def test_what_the_example_gives_is_an_input() -> None:
    model, x = masked(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scale = torch.rand(1, 6, 1, 1, dtype=torch.float64) + 0.5
    shrunk = shrink(model, (x, scale))
    for factor in (1.0, -2.0):
        torch.testing.assert_close(shrunk.model(x, factor * scale), model(x, factor * scale), rtol=0, atol=1e-12)
