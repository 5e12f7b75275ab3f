"""The regression guard: small networks take the instructions that the committed table says, within 1 %."""

from __future__ import annotations

import pytest

from edgeprune.matrix.cache import Cache
from tests.unit.benchmark_scripts import load
from tests.unit.native.emulators import emulator

TOLERANCE = 0.01


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("counted"))


@pytest.mark.parametrize("target", ["rpi4", "rpi2"])
@pytest.mark.parametrize(("name", "form"), [("lenet5", "dense"), ("resnet20", "dense"), ("resnet56", "shrunk")])
def test_instructions_are_those_of_the_table(name: str, form: str, target: str, cache: Cache) -> None:
    instructions, cases = load("instructions"), load("peer_cases")
    emulator(target)
    table = {row.what: row for row in instructions.read(instructions.PUBLISHED)}
    published = table[name, form, target].instructions
    (case,) = cases.chosen([name], [form], (cases.LENET5, *cases.CASES))
    counted = instructions.count(case, target, cache).instructions
    assert abs(counted / published - 1) <= TOLERANCE, (
        f"{name} {form}: {counted:,} instructions on {target}, in the table {published:,}: if the change is meant, "
        f"run benchmarks/speed/instructions.py --networks {name} --out results/published"
    )
