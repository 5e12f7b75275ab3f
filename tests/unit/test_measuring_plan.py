"""The measuring plan: presets, bad input, and the order of launches."""

from __future__ import annotations

from collections import Counter

import pytest

from edgeprune.errors import UnknownNameError, UserError
from edgeprune.measuring import PRESETS, blocks, group_size, plan

UNITS = [("a-0.3", ["a-m3", "a-s3"]), ("a-0.5", ["a-m5", "a-s5"]), ("a", ["a-dense"]), ("b", ["b-dense"])]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("quick", (64, 1.0, 3, 0.01)), ("standard", (128, 10.0, 6, 0.1)), ("paper", (1024, 60.0, 10, 0.1))],
)
def test_presets_are_those_of_the_design_but_quick_groups_10_ms(
    name: str, numbers: tuple[int, float, int, float]
) -> None:
    """The design has 100 ms, but then each launch of `quick` would take 6.4 s, and a demo is to be short."""
    made = plan(name)
    assert (made.samples, made.seconds, made.launches, made.group_seconds) == numbers
    assert (made.warmup_calls, made.warmup_seconds, made.warmup_window, made.warmup_max) == (10, 0.5, 20, 300)


def test_a_plan_survives_its_own_dump() -> None:
    for preset in PRESETS.values():
        assert plan(preset.model_dump()) == preset


def test_numbers_replace_those_of_the_preset_named_or_of_standard() -> None:
    assert plan({"name": "quick", "launches": 5}) == PRESETS["quick"].model_copy(update={"launches": 5})
    assert plan({"samples": 7}) == PRESETS["standard"].model_copy(update={"name": "custom", "samples": 7})


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="qick") as raised:
        plan("qick")
    assert "quick" in str(raised.value.hint)
    with pytest.raises(UnknownNameError, match="sample") as raised:
        plan({"sample": 3})
    assert "samples" in str(raised.value.hint)


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 0},
        {"samples": "many"},
        {"launches": -1},
        {"seconds": float("inf")},
        {"group_seconds": 0},
        {"warmup_max": 10, "warmup_window": 20},
        7,
    ],
)
def test_impossible_numbers_are_the_users_mistake(wrong: object) -> None:
    with pytest.raises(UserError, match="measure") as raised:
        plan(wrong)  # type: ignore[arg-type]
    assert raised.value.hint


@pytest.mark.parametrize(("call_ns", "group"), [(1e6, 1), (5e9, 1), (999_999, 11), (20_000, 500), (0, 10_000_000)])
def test_only_calls_under_a_millisecond_are_grouped(call_ns: float, group: int) -> None:
    assert group_size(call_ns, plan("quick")) == group


def test_each_block_holds_one_launch_of_every_cell_and_partners_are_neighbours() -> None:
    paper = plan("paper")
    steps = blocks(UNITS, paper, seed=3)
    for block in range(paper.launches):
        mine = [step for step in steps if step.block == block]
        assert [step.order for step in mine] == list(range(6))
        assert Counter(step.cell_id for step in mine) == Counter(cell for _, cells in UNITS for cell in cells)
        for unit, cells in UNITS:
            places = [step.order for step in mine if step.unit == unit]
            assert max(places) - min(places) == len(cells) - 1
    assert [step.block for step in steps] == sorted(step.block for step in steps)


def test_the_order_is_recorded_by_its_seed_and_by_nothing_else() -> None:
    paper = plan("paper")
    steps = blocks(UNITS, paper, seed=3)
    assert blocks(UNITS[::-1], paper, seed=3) == steps
    assert blocks(UNITS, plan("quick"), seed=3) == [step for step in steps if step.block < 3]
    assert blocks(UNITS, paper, seed=4) != steps


def test_units_and_partners_both_come_first_about_as_often_as_second() -> None:
    many = plan({"name": "paper", "launches": 600})
    steps = blocks(UNITS, many, seed=0)
    firsts = Counter(step.unit for step in steps if step.order == 0)
    assert all(100 < firsts[unit] < 200 for unit, _ in UNITS)
    place = {(step.block, step.cell_id): step.order for step in steps}
    masked_first = sum(place[block, "a-m3"] < place[block, "a-s3"] for block in range(600))
    assert 240 < masked_first < 360
