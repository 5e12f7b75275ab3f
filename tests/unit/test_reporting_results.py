"""What a report reads out of a results folder, against numpy on the journal's own lines."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from edgeprune import models
from edgeprune.errors import ResultsError
from edgeprune.reporting import answer, load, wording
from edgeprune.reporting.tables import csv_files, latex_escape, latex_files
from edgeprune.schema import CELL_COLUMNS, LAYER_COLUMNS, PAIR_COLUMNS, CellEnd, Launch, Network, Reading
from tests.unit import sample_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_run.write_run(tmp_path_factory.mktemp("run"))


def journal_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [record for line in lines if (record := json.loads(line)["record"])["kind"] == kind]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_files(load(folder))[name].decode())))


def test_columns_are_those_of_the_contract(folder: Path) -> None:
    heads = {name: content.decode().splitlines()[0].split(",") for name, content in csv_files(load(folder)).items()}
    assert heads == {"cells.csv": CELL_COLUMNS, "pairs.csv": PAIR_COLUMNS, "layers.csv": LAYER_COLUMNS}


def test_cells_csv_equals_numpy_on_the_journal(folder: Path) -> None:
    rows = table(folder, "cells.csv")
    assert len(rows) == 28
    launches = journal_lines(folder, "launch")
    networks = {json.dumps(record["key"], sort_keys=True): record for record in journal_lines(folder, "network")}
    for row, end in zip(rows, journal_lines(folder, "cell"), strict=True):
        assert row["cell_id"] == end["cell_id"]
        mine = [launch for launch in launches if launch["cell_id"] == row["cell_id"]]
        timed = [launch for launch in mine if launch["purpose"] == "latency"]
        samples = np.concatenate([np.array(launch["samples_ns"]) / launch["group"] for launch in timed])
        assert float(row["latency_ns_median"]) == pytest.approx(np.median(samples), rel=1e-8)
        assert float(row["latency_ns_ci_low"]) < np.median(samples) < float(row["latency_ns_ci_high"])
        assert (row["launches"], row["samples"], row["latency_ns_p90"]) == ("3", "192", "")
        assert (row["peak_rss_bytes"], row["artifact_bytes"], row["instructions"]) == ("58000000", "1234567", "")
        assert (row["temp_c_start"], row["temp_c_end"], row["throttled"]) == ("44.5", "46", "false")
        network = networks[json.dumps(end["key"]["network"], sort_keys=True)]
        assert (int(row["params"]), int(row["macs"])) == (network["params"], network["macs"])
        assert float(row["accuracy"]) == pytest.approx(network["accuracy"])
        dense = network["key"]["variant"] == "dense"
        assert (row["method"] == "") == (row["pruning_ratio"] == "") == dense


def test_pandas_reads_the_tables_as_they_are(folder: Path) -> None:
    files = csv_files(load(folder))
    cells, pairs = (pandas.read_csv(io.BytesIO(files[name])) for name in ("cells.csv", "pairs.csv"))
    numbers = ["latency_ns_median", "macs", "params", "accuracy", "peak_rss_bytes", "temp_c_end", "launches"]
    assert all(cells[name].dtype.kind in "if" for name in numbers)
    assert cells["instructions"].isna().all()
    assert cells["throttled"].dtype == bool
    assert cells[cells.variant == "dense"]["pruning_ratio"].isna().all()
    joined = cells.pivot(index=["model", "runtime", "pruning_ratio"], columns="variant", values="latency_ns_median")
    real = pairs.set_index(["model", "runtime", "pruning_ratio"]).real_speedup
    assert len(real) == 12
    quotients = (joined.masked / joined.shrunk).reindex(real.index)
    assert np.allclose(quotients, real, rtol=0.05)


def test_pairs_csv_equals_numpy_on_the_journal_and_finds_what_was_put_in(folder: Path) -> None:
    rows = table(folder, "pairs.csv")
    assert len(rows) == 12
    launches = [launch for launch in journal_lines(folder, "launch") if launch["purpose"] == "latency"]
    ends = {end["cell_id"]: end["key"] for end in journal_lines(folder, "cell")}
    for row in rows:
        logs = {"masked": [0.0] * 3, "shrunk": [0.0] * 3}
        for launch in launches:
            key = ends[launch["cell_id"]]
            network = key["network"]
            if (network["model"], key["runtime"], str(network["pruning_ratio"])) == (
                row["model"], row["runtime"], row["pruning_ratio"],
            ):  # fmt: skip
                per_call = np.median(launch["samples_ns"]) / launch["group"]
                logs[network["variant"]][launch["block"]] = math.log(per_call)
        real = math.exp(np.mean(np.subtract(logs["masked"], logs["shrunk"])))
        assert float(row["real_speedup"]) == pytest.approx(real, rel=1e-8)
        assert float(row["real_speedup_ci_low"]) < real < float(row["real_speedup_ci_high"])
        promised = (1 - float(row["pruning_ratio"])) ** -sample_run.SHRINKS_BY[row["model"]]
        assert float(row["theoretical_speedup_macs"]) == pytest.approx(promised, rel=1e-4)
        assert float(row["theoretical_speedup_filters"]) == pytest.approx(1 / (1 - float(row["pruning_ratio"])))
        assert float(row["realised"]) == pytest.approx(math.log(real) / math.log(promised), rel=1e-3)
        assert float(row["realised"]) == pytest.approx(sample_run.REALISED[row["runtime"]], abs=0.04)
        assert row["verdict"] == "faster"


def test_layers_csv_has_a_row_a_layer(folder: Path) -> None:
    rows = table(folder, "layers.csv")
    assert len(rows) == 2 * sum(1 for _ in journal_lines(folder, "network"))
    assert rows[0]["layer"] == "conv1"
    assert rows[0]["macs"] == "442368"


def test_equal_journals_give_equal_tables(folder: Path) -> None:
    assert csv_files(load(folder)) == csv_files(load(folder))
    assert latex_files(load(folder)) == latex_files(load(folder))


def test_launches_without_a_partner_count_in_the_cell_but_not_in_the_ratio(tmp_path: Path) -> None:
    made = sample_run.records(models=["lenet5"], ratios=[0.5], runtimes=["tvm"])
    whole = load(sample_run.write_run(tmp_path / "whole", made)).pairs[0]
    lost = next(
        record for record in made
        if isinstance(record, Launch) and record.cell_id == whole.shrunk.end.cell_id and record.block == 1
    )  # fmt: skip
    # the run was stopped after the masked launch; the next session makes both anew, under another session
    again = [
        record.model_copy(update={"session_id": "second"})
        for record in made
        if isinstance(record, Launch) and record.block == 1 and record.unit == lost.unit
    ]
    results = load(sample_run.write_run(tmp_path / "resumed", [*(one for one in made if one is not lost), *again]))
    pair = results.pairs[0]
    assert pair.ratio is not None
    assert pair.ratio.blocks == 3
    assert pair.masked.latency is not None
    assert pair.masked.latency.launches == 4
    without = load(sample_run.write_run(tmp_path / "lost", [one for one in made if one is not lost])).pairs[0]
    assert without.ratio is not None
    assert without.ratio.blocks == 2
    # partners of two sessions did not run back to back, whatever their block says
    apart = [one.model_copy(update={"session_id": "second"}) if one is lost else one for one in made]
    split = load(sample_run.write_run(tmp_path / "apart", apart)).pairs[0]
    assert split.ratio is not None
    assert split.ratio.blocks == 2


def test_pairs_need_both_cells_ok_and_other_cells_show_no_latency(tmp_path: Path) -> None:
    made = sample_run.records(models=["lenet5"], ratios=[0.3, 0.5], runtimes=["tvm"])
    wrong = next(one.cell_id for one in made if isinstance(one, CellEnd) and one.key.network.variant == "masked")
    made = [
        one.model_copy(update={"status": "failed", "reason": "it, \"quoted\"\nfell over"})
        if isinstance(one, CellEnd) and one.cell_id == wrong else one
        for one in made
    ]  # fmt: skip
    folder = sample_run.write_run(tmp_path / "run", made)
    assert [pair.pruning_ratio for pair in load(folder).pairs] == [0.5]
    row = next(row for row in table(folder, "cells.csv") if row["cell_id"] == wrong)
    assert (row["status"], row["reason"]) == ("failed", 'it, "quoted"\nfell over')
    assert (row["latency_ns_median"], row["samples"], row["flags"]) == ("", "", "")
    assert row["params"] == "431080"


def test_a_throttled_launch_does_not_count_once_it_was_made_again(tmp_path: Path) -> None:
    made = sample_run.records(models=["lenet5"], ratios=[0.5], runtimes=["tvm"])
    quiet = load(sample_run.write_run(tmp_path / "quiet", made)).pairs[0]
    first = next(
        one for one in made
        if isinstance(one, Launch) and one.cell_id == quiet.shrunk.end.cell_id and one.purpose == "latency"
    )  # fmt: skip
    hot = first.model_copy(
        update={
            "session_id": "before",
            "samples_ns": [9 * value for value in first.samples_ns],
            "steady": False,
            "readings": [Reading(t_ns=0, temp_c=91.0, throttled=True)],
        }
    )
    partner = next(
        one for one in made if isinstance(one, Launch) and (one.unit, one.block) == (hot.unit, hot.block)
        and one.cell_id == quiet.masked.end.cell_id and one.purpose == "latency"
    ).model_copy(update={"session_id": "before"})  # fmt: skip
    folder = sample_run.write_run(tmp_path / "again", [hot, partner, *made])
    again = load(folder).pairs[0]
    assert again.ratio == quiet.ratio
    assert again.shrunk.latency == quiet.shrunk.latency
    assert again.shrunk.launches[0] == hot
    assert set(again.shrunk.flags) == {"throttled", *quiet.shrunk.flags}
    row = next(row for row in table(folder, "cells.csv") if row["cell_id"] == again.shrunk.end.cell_id)
    assert (row["launches"], row["throttled"]) == ("3", "true")


def test_settings_never_share_a_label() -> None:
    def settings(*places: tuple[str, str, str]) -> list[str]:
        (key,) = sample_run.cell_keys(["lenet5"], [], ["tvm"])
        keys = [key.model_copy(update=dict(zip(("runtime", "device", "target"), one, strict=True))) for one in places]
        return list(wording.setting_labels(keys).values())

    assert settings(("tvm", "pi", "a72"), ("tvm", "pi", "a53"), ("tvm", "nano", "a57")) == [
        "TVM, pi, a72", "TVM, pi, a53", "TVM, nano",
    ]  # fmt: skip
    assert settings(("tvm", "pi", "a72"), ("tvm", "pi", "a53")) == ["TVM, a72", "TVM, a53"]
    assert settings(("tvm", "pi", "a72"), ("tvm", "nano", "a57")) == ["TVM, pi", "TVM, nano"]
    every = list(itertools.product(("tvm", "torch"), ("pi", "nano"), ("a72", "a53", "host")))
    for number in range(1, 4):
        for chosen in itertools.combinations(every, number):
            labels = settings(*chosen)
            assert len(set(labels)) == len(labels) == number


def test_macs_of_large_networks_are_printed_without_an_exponent(tmp_path: Path) -> None:
    made = [
        one.model_copy(update={"macs": 4_089_184_256}) if isinstance(one, Network) else one
        for one in sample_run.records(["resnet56"], [0.5], ["tvm"])
    ]
    lines = latex_files(load(sample_run.write_run(tmp_path / "run", made)))["networks.tex"].decode().splitlines()
    assert [line.split(" & ")[6] for line in lines if "ResNet-56" in line] == ["4,089"] * 3


def test_single_weights_promise_what_the_filters_do_that_they_emptied(tmp_path: Path) -> None:
    """Of unstructured pruning the ratio is of weights: half of them gone need not remove a filter."""
    made = [
        one.model_copy(update={"pruned_filters": 8 if one.key.method else 0}) if isinstance(one, Network) else one
        for one in sample_run.records(["lenet5"], [0.5], ["tvm"])
    ]
    pair = load(sample_run.write_run(tmp_path / "run", made)).pairs[0]
    assert pair.theoretical_filters == pytest.approx(784 / 776)
    assert answer(load(tmp_path / "run")).startswith("Pruning at a ratio of 50 % promises ")


def test_a_run_in_progress_tells_what_is_left(tmp_path: Path) -> None:
    keys = sample_run.cell_keys(["lenet5"], [0.5], ["tvm"])
    made = [one for one in sample_run.records(["lenet5"], [0.5], ["tvm"]) if not isinstance(one, CellEnd)]
    results = load(sample_run.write_run(tmp_path / "run", made, asked=keys))
    assert (results.cells, results.pairs, len(results.unfinished)) == ((), (), 3)
    assert answer(results).startswith("There is no answer yet")
    assert "3 of 3 cells" in answer(results)


def test_dense_macs_are_taken_from_the_masked_network_where_the_dense_one_is_not_there(tmp_path: Path) -> None:
    made = [
        one for one in sample_run.records(["lenet5"], [0.5], ["tvm"])
        if not (isinstance(one, Network) and one.key.variant == "dense")
    ]  # fmt: skip
    pair = load(sample_run.write_run(tmp_path / "run", made)).pairs[0]
    assert pair.theoretical_macs == pytest.approx(4.0, rel=1e-5)


def test_a_damaged_journal_line_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    folder = sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"], [0.5], ["tvm"]))
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"ok"', b'"no"')
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    results = load(folder)
    assert len(results.cells) == 2
    assert "checksum" in results.problems[0]


@pytest.mark.parametrize("gone", ["folder", "manifest.json", "journal.jsonl"])
def test_what_is_missing_is_named(tmp_path: Path, gone: str) -> None:
    folder = sample_run.write_run(tmp_path / "run", [])
    if gone == "folder":
        folder = tmp_path / "nowhere"
    else:
        (folder / gone).unlink()
    with pytest.raises(ResultsError, match="nowhere" if gone == "folder" else gone) as raised:
        load(folder)
    assert "edgeprune run" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "manifest"),
        ('{"schema_version": 1}', "run_id"),
        ('{"schema_version": 99}', "schema 99"),
    ],
)
def test_an_unreadable_manifest_is_the_users_to_mend(tmp_path: Path, content: str, said: str) -> None:
    folder = sample_run.write_run(tmp_path / "run", [])
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ResultsError, match=said) as raised:
        load(folder)
    assert raised.value.hint


def test_every_network_has_a_name_of_its_own_as_papers_write_it() -> None:
    names = [wording.model_name(name) for name in models.names()]
    assert len(set(names)) == len(names)
    assert not set(names) & set(models.names())


def test_ratios_that_differ_are_told_apart() -> None:
    keys = [sample_run.network_key("lenet5", ratio, "shrunk") for ratio in (0.33, 1 / 3, 0.5)]
    assert [wording.recipe_label(key, keys) for key in keys] == ["33.0 %", "33.3 %", "50.0 %"]
    assert wording.recipe_label(keys[1], keys[1:]) == "33 %"


def test_latex_prints_every_sign_as_it_is() -> None:
    assert latex_escape(r"a_b & 50% #1 {x} \y ~^") == (
        r"a\_b \& 50\% \#1 \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{}"
    )


def test_the_answer_in_one_sentence(folder: Path) -> None:
    said = answer(load(folder))
    assert said.startswith("Removing 50 % of the filters promises 3.48× by MACs (mean of LeNet-5 and ResNet-20); ")
    assert "on this machine ONNX Runtime delivers 1.7" in said
    assert "(realised 45 %)" in said
    assert "TVM delivers 2.7" in said
    assert said.count(".") - said.count("×") == 1


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((100, 101), "TVM shows no measurable change (0.9"),
        ((100, 150), "TVM is slower (0.67×)"),
        ((100, 50), "TVM delivers 2.00× (realised 50 %)"),
    ],
)
def test_the_answer_says_slower_and_no_change(tmp_path: Path, levels: tuple[int, int], said: str) -> None:
    keys = sample_run.cell_keys(["lenet5"], [0.5], ["tvm"])
    made: list[sample_run.AnyRecord] = []
    for key in keys:
        made.append(sample_run.network(key.network))
        for block, wobble in enumerate((-3, 0, 3)):
            level = levels[key.network.variant == "shrunk"] * 1000 + 1000 * wobble * (key.network.variant == "shrunk")
            one = sample_run.launch(key, block, 0, 2e6, np.random.default_rng(0))
            made.append(one.model_copy(update={"group": 1, "samples_ns": [level] * 64}))
        made.append(CellEnd(session_id="first", cell_id=key.cell_id, key=key, status="ok"))
    assert said in answer(load(sample_run.write_run(tmp_path / "run", made)))


def test_measuring_and_loading_need_neither_torch_nor_tvm_nor_matplotlib() -> None:
    code = (
        "import sys, edgeprune.measuring, edgeprune.reporting\n"
        "print(sorted({'torch', 'tvm', 'matplotlib', 'jinja2', 'pandas', 'edgeprune.matrix'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
