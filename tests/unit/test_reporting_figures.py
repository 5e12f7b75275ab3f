"""What stands for what in the figures: line styles, bars and legends, read from matplotlib's own objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgeprune.reporting import load
from edgeprune.reporting.figures import draw
from edgeprune.reporting.plot_style import log_axes
from tests.unit import sample_run

L1, L2 = "-", ":"


@pytest.fixture(scope="module")
def two_methods(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """LeNet-5 pruned by l2 alone, ResNet-20 by l1 and by l2."""
    l2 = sample_run.by_recipe(sample_run.records(runtimes=["tvm"]), "l2", 0)
    l1 = [one for one in sample_run.records(["resnet20"], runtimes=["tvm"]) if one.kind != "session"]
    return draw(load(sample_run.write_run(tmp_path_factory.mktemp("methods"), [*l2, *l1])))


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    made = [record for seed in (0, 1) for record in sample_run.by_recipe(
        sample_run.records(["lenet5"], runtimes=["tvm"], seed=seed), "l1", seed)]  # fmt: skip
    return draw(load(sample_run.write_run(tmp_path_factory.mktemp("seeds"), made)))


def legend(figure: Figure) -> dict[str, Line2D]:
    handles = figure.legends[0].legend_handles
    return {str(one.get_label()): one for one in handles if isinstance(one, Line2D)}


def curves(axes: Axes) -> list[Line2D]:
    """The lines that join ratios, at least three points each."""
    return [line for line in axes.lines if len(line.get_xydata()) >= 3]


def test_a_method_has_one_line_style_in_every_panel_and_in_the_legend(two_methods: dict[str, Figure]) -> None:
    for name in ("accuracy", "compression", "speedup"):
        entries = legend(two_methods[name])
        assert (entries["l1"].get_linestyle(), entries["l2"].get_linestyle()) == (L1, L2)
    lenet5, resnet20 = two_methods["accuracy"].axes
    assert {line.get_linestyle() for line in curves(lenet5)} == {L2}
    assert {line.get_linestyle() for line in curves(resnet20)} == {L1, L2}
    for name in ("compression", "speedup"):
        styles: dict[object, set[str]] = {}
        for line in curves(two_methods[name].axes[0]):
            # the highest point tells the models apart: LeNet-5 is promised more than ResNet-20
            styles.setdefault(max(line.get_xdata()) > 8 if name == "speedup" else line.get_color(), set()).add(
                line.get_linestyle()
            )
        assert sorted(styles.values(), key=len) == [{L2}, {L1, L2}]


def test_one_recipe_needs_no_entry_in_the_legend(tmp_path: Path) -> None:
    figures = draw(load(sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"], runtimes=["tvm"]))))
    assert list(legend(figures["speedup"])) == ["TVM", "all of it real (y = x)", "LeNet-5", " "]
    assert list(legend(figures["compression"])) == ["LeNet-5", "y = x"]


def test_each_seed_has_its_dense_bar_and_its_line(two_seeds: dict[str, Figure]) -> None:
    axes = two_seeds["latency"].axes[0]
    bars = [bar for one in axes.containers if isinstance(one, BarContainer) for bar in one.patches]
    places = [round(bar.get_x(), 6) for bar in bars]
    assert len(places) == len(set(places)) == 2 * 7
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[:2] == ["dense, seed 0", "dense, seed 1"]
    assert names[2:4] == ["30 % seed 0", "30 % seed 1"]
    entries = legend(two_seeds["speedup"])
    assert entries["l1, seed 0"].get_linestyle() != entries["l1, seed 1"].get_linestyle()


def test_points_of_several_runtimes_do_not_hide_each_other(tmp_path: Path) -> None:
    figure = draw(load(sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"]))))["speedup"]
    lines = [line.get_xdata() for line in curves(figure.axes[0])]
    assert len(lines) == 2
    for one, other in zip(*lines, strict=True):
        assert 1.01 < max(one, other) / min(one, other) < 1.03
    promised = [(1 - ratio) ** -sample_run.SHRINKS_BY["lenet5"] for ratio in (0.3, 0.5, 0.7)]
    for line in lines:
        assert list(line) == pytest.approx(promised, rel=0.03)


@pytest.mark.parametrize("top", [1.4, 3.0, 9.0, 70.0, 500.0])
@pytest.mark.parametrize("bottom", [0.03, 0.3, 0.85, 1.0])
def test_logarithmic_axes_always_show_the_tick_of_no_change(bottom: float, top: float) -> None:
    axes = Figure().add_subplot()
    log_axes(axes, 0.9, 2.0, [bottom, top])
    assert 1.0 in axes.get_yticks()
    assert len(axes.get_yticks()) <= 8


def test_accuracy_is_ticked_in_round_steps(two_methods: dict[str, Figure]) -> None:
    for axes in two_methods["accuracy"].axes:
        low, high = axes.get_ylim()
        assert high - low >= 4.0
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        step = ticks[1] - ticks[0]
        assert step in (pytest.approx(1), pytest.approx(2), pytest.approx(5))


def test_a_network_of_which_nothing_is_left_is_no_point_of_a_plot(tmp_path: Path) -> None:
    """A constant answer needs no parameters."""
    made = [
        one.model_copy(update={"params": 0}) if one.kind == "network" and one.key.variant == "shrunk" else one
        for one in sample_run.records()
    ]
    assert sum(one.kind == "network" and not one.params for one in made) > 0
    figures = draw(load(sample_run.write_run(tmp_path / "run", made)))
    assert "compression" not in figures
