"""Methods side by side: their shares by the records, fronts by brute force, figures by matplotlib's own objects."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgeprune.reporting import Results, answer, load, write_report
from edgeprune.reporting.figures import draw
from edgeprune.reporting.methods import front, method_rows
from edgeprune.reporting.plot_methods import MARKS
from edgeprune.schema import CellEnd, Network
from tests.unit import sample_run
from tests.unit.chromium import open_page

SINGLE = {"speedup", "latency", "accuracy", "compression"}
FIVE = ["l1", "fpgm", "bn", "taylor", "slimming"]
RATIOS = (0.3, 0.5)


def records(methods: list[str], runtimes: tuple[str, ...] = ("tvm", "native")) -> list[sample_run.AnyRecord]:
    """ResNet-20 by several methods; the n-th is right n points less often, and pruned to a filter less."""
    made: list[sample_run.AnyRecord] = []
    for number, method in enumerate(methods):
        own = sample_run.by_recipe(sample_run.records(["resnet20"], RATIOS, runtimes, seed=number), method, 0)
        for one in own:
            network = one.key if isinstance(one, Network) else one.key.network if isinstance(one, CellEnd) else None
            if number and (one.kind in ("session", "device") or (network and network.variant == "dense")):
                continue
            if isinstance(one, Network) and one.key.variant != "dense":
                less = {"accuracy": one.accuracy - 0.01 * number, "pruned_filters": one.pruned_filters - number}
                one = one.model_copy(update=less)
            made.append(one)
    return made


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return load(sample_run.write_run(tmp_path_factory.mktemp("five"), records(FIVE)))


@pytest.fixture(scope="module")
def figures(five: Results) -> dict[str, Figure]:
    return draw(five)


def test_options_take_no_room_of_a_panel(tmp_path: Path) -> None:
    options = "(batch_size=128,epochs=100,learning_rate=0.001,momentum=0.9)"
    long = [f"lobster{options}", f"serene-global{options}", f"l1{options}", "l1"]
    figure = draw(load(sample_run.write_run(tmp_path / "run", records(long))))["pareto"]
    figure.draw_without_rendering()
    assert all(axes.get_position().width > 0.2 for axes in figure.axes)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    labels += [text.get_text() for axes in figure.axes if axes.legend_ for text in axes.legend_.get_texts()]
    assert {"lobster", "serene-global", "l1", long[2]} <= set(labels)


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


@given(points)
def test_a_front_is_all_that_nothing_beats(points: list[tuple[int, int]]) -> None:
    found = [points[place] for place in front([(float(x), float(y)) for x, y in points])]
    unbeaten = {(x, y) for x, y in points if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)}
    assert sorted(unbeaten) == found


def test_rows_are_shares_of_the_dense_network_in_the_order_of_the_matrix(five: Results) -> None:
    rows = method_rows(five)
    assert [(row.key.method, row.key.pruning_ratio) for row in rows] == [(m, r) for m in FIVE for r in RATIOS]
    dense = next(one for one in five.networks if one.key.variant == "dense")
    for row in rows:
        ratio, number = row.key.pruning_ratio or 0.0, FIVE.index(row.key.method)
        kept = (1 - ratio) ** sample_run.SHRINKS_BY["resnet20"]
        assert row.filters_gone == (round(784 * ratio) - number) / 784
        assert row.parameters_gone == pytest.approx(1 - kept, abs=1e-4)
        assert row.zeros == pytest.approx(1 - kept, abs=1e-4)
        assert row.macs_gone == pytest.approx(1 - kept, abs=1e-4)
        assert row.lost == pytest.approx(dense.accuracy - row.accuracy)
        assert row.keeps == (number < 2)
        for setting, gone in row.latency_gone.items():
            assert gone == pytest.approx(1 - kept ** sample_run.REALISED[setting[0]], abs=0.06)


def test_one_method_is_not_compared_and_many_need_no_lines(tmp_path: Path, figures: dict[str, Figure]) -> None:
    one, two = (
        draw(load(sample_run.write_run(tmp_path / name, records(methods))))
        for name, methods in (("one", ["l1"]), ("two", ["l1", "fpgm"]))
    )
    assert set(one) == SINGLE
    assert set(two) == SINGLE | {"pareto", "methods"}
    assert set(figures) == {"pareto", "methods"}


def test_thirty_methods_have_marks_of_their_own() -> None:
    assert len({(one["marker"], one["markerfacecolor"]) for one in MARKS}) == 30


def markers(axes: Axes) -> dict[tuple[float, float], Line2D]:
    """The points that stand for networks."""
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line  # type: ignore[index,arg-type]
        for line in axes.lines
        if line.get_linestyle() == "None" and len(line.get_xydata()) == 1
    }


def test_each_panel_has_every_network_at_its_share_and_the_front_through_the_best(
    five: Results, figures: dict[str, Figure]
) -> None:
    rows = method_rows(five)
    tvm, native = list(rows[0].latency_gone)
    shares = {
        "filters or structures removed (%)": [row.filters_gone for row in rows],
        "parameters gone, once shrunk (%)": [row.parameters_gone for row in rows],
        "MACs gone, once shrunk (%)": [row.macs_gone for row in rows],
        "latency gone, TVM (%)": [row.latency_gone[tvm] for row in rows],
        "latency gone, Static program (%)": [row.latency_gone[native] for row in rows],
    }
    panels = {axes.get_xlabel(): axes for axes in figures["pareto"].axes if axes.get_xlabel()}
    assert panels.keys() == shares.keys()
    dense = 100 * (rows[0].accuracy + rows[0].lost)
    for label, gone in shares.items():
        expected = [(0.0, dense), *((100 * x, 100 * row.accuracy) for x, row in zip(gone, rows, strict=True))]
        assert set(markers(panels[label])) == set(expected)
        steps = next(line for line in panels[label].lines if line.get_drawstyle() == "steps-pre")
        on_front = [expected[place] for place in front(expected)]
        assert [tuple(point) for point in steps.get_xydata()] == on_front
        named = [text.get_text() for text in panels[label].texts]
        assert "l1" in named
        assert len(named) < len(on_front)  # the dense network is a star


def test_the_legend_and_the_panels_give_a_method_one_mark(five: Results, figures: dict[str, Figure]) -> None:
    legend = next(axes.get_legend() for axes in figures["pareto"].axes if axes.get_legend())
    assert legend is not None
    entries = {str(one.get_label()): one for one in legend.legend_handles if isinstance(one, Line2D)}
    assert [name for name in entries if name in FIVE] == FIVE
    for axes in figures["pareto"].axes[:3]:
        for row in method_rows(five):
            y = 100 * row.accuracy
            drawn = next(line for (_, at), line in markers(axes).items() if at == pytest.approx(y))
            mark = entries[row.key.method]
            assert (drawn.get_marker(), drawn.get_markerfacecolor()) == (mark.get_marker(), mark.get_markerfacecolor())


def test_a_line_a_recipe_tells_what_is_promised_and_what_is_real(five: Results, figures: dict[str, Figure]) -> None:
    left, right = figures["methods"].axes
    assert (left.get_title(), right.get_title()) == ("TVM", "Static program")
    rows = method_rows(five)
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [f"{row.key.method} {100 * (row.key.pruning_ratio or 0):.0f} %" for row in rows]
    for axes, setting in zip((left, right), rows[0].pairs, strict=True):
        for place, row in enumerate(rows):
            pair = row.pairs[setting]
            assert pair.ratio is not None
            found = {x for x, y in markers(axes) if y == place}  # and the ends of the interval
            assert found >= {pair.theoretical_filters, pair.theoretical_macs, pair.ratio.ratio}


def test_a_network_without_any_filter_left_is_promised_everything(tmp_path: Path) -> None:
    made = [
        one.model_copy(update={"pruned_filters": one.filters})
        if isinstance(one, Network) and one.key.method == "bn"
        else one
        for one in records(FIVE)
    ]
    run = load(sample_run.write_run(tmp_path / "run", made))
    assert {pair.theoretical_filters for pair in run.pairs if pair.key.network.method == "bn"} == {math.inf}
    assert ",inf," in write_report(run.folder).csv["pairs.csv"].read_text()


def test_the_answer_counts_who_keeps_the_accuracy_and_names_the_fastest(five: Results) -> None:
    at_half = [row for row in method_rows(five) if row.key.pruning_ratio == 0.5 and row.keeps]
    real = {row.key.method: [pair.ratio.ratio for pair in row.pairs.values() if pair.ratio] for row in at_half}
    fastest = max(real, key=lambda method: math.prod(real[method]))
    said = answer(five)
    assert said.startswith(
        "At a ratio of 50 %, 2 of 5 pruned networks stay within 2 points of dense accuracy; of these "
    )
    assert f"ResNet-20 by {fastest} gains most" in said
    for ratio, runtime in zip(real[fastest], ("TVM", "the static program"), strict=True):
        assert f"{runtime} delivers {ratio:.2f}×" in said


def test_a_point_far_below_is_drawn_at_the_foot(tmp_path: Path) -> None:
    made = [
        one.model_copy(update={"accuracy": 0.1})
        if isinstance(one, Network) and one.key.method == "bn" and one.key.variant == "shrunk"
        else one
        for one in records(FIVE)
    ]
    axes = draw(load(sample_run.write_run(tmp_path / "run", made)))["pareto"].axes[0]
    foot, top = axes.get_ylim()
    assert top - foot < 15
    assert sum(y == foot for _, y in markers(axes)) == len(RATIOS)


def test_the_report_compares_them_in_a_table_and_in_latex(tmp_path: Path) -> None:
    report = write_report(sample_run.write_run(tmp_path / "run", records(FIVE)))
    lines = report.tables["methods.tex"].read_text().splitlines()
    assert sum("ResNet-20" in line for line in lines) == len(FIVE) * len(RATIOS)
    with open_page(report.html, tmp_path / "profile") as page:
        assert page.errors == []
        rows = page.evaluate('document.querySelectorAll("#methods tbody tr").length')
        assert rows == len(FIVE) * len(RATIOS)
        first = page.evaluate('[...document.querySelector("#methods tbody tr").cells].map((one) => one.textContent)')
        assert first[:3] == ["ResNet-20", "l1 30 %", "30 %"]
        assert page.evaluate('document.querySelector(".missing")') is None
        assert page.evaluate("document.images.length") == 2
