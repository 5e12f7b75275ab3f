"""The table against other runtimes: only right answers are timed, and its figures follow from its rows."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeprune.errors import CompileError
from edgeprune.matrix.cache import Cache
from edgeprune.matrix.stages import INPUT_FILE, REFERENCE_FILE
from edgeprune.transport import Transport, connect
from tests.unit.benchmark_scripts import load

IMAGE = (1, 1, 28, 28)


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    return load("peers")


@pytest.fixture(scope="module")
def rows() -> ModuleType:
    return load("peer_rows")


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    return load("peer_cases")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture
def transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    with contextlib.closing(connect("local")) as way:
        assert way.acquire()
        yield way


def test_wrong_and_missing_networks_are_told_and_not_timed(
    peers: ModuleType, cases: ModuleType, cache: Cache, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet5, other = cases.LENET5, cases.Case(cases.LENET5.network, "shrunk", 1)
    right = lenet5.files(cache) / cases.ONNX_FILE
    files = {
        "onnxruntime": (right,),
        "openvino": (other.files(cache) / cases.ONNX_FILE,),
        "ncnn": CompileError("the converter made no network"),
        "mnn": (right.with_name(INPUT_FILE),),
    }
    start = peers.start
    monkeypatch.setattr(peers, "prepared", lambda *_: files)
    monkeypatch.setattr(peers, "start", lambda way, _, *rest: start(way, "onnxruntime", *rest))
    told = {row.runtime: row for row in peers.measure(lenet5, 1, list(files), transport, cache, rounds=2)}
    assert {name: row.status for name, row in told.items()} == {
        "onnxruntime": "ok",
        "openvino": "wrong",
        "ncnn": "failed",
        "mnn": "failed",
    }
    assert {name: len(row.round_ms) for name, row in told.items()} == {
        "onnxruntime": 2,
        "openvino": 0,
        "ncnn": 0,
        "mnn": 0,
    }
    assert "differs" in told["openvino"].reason
    assert told["ncnn"].reason == "the converter made no network"
    assert told["mnn"].reason  # what ONNX Runtime says of a file that is no network


@pytest.mark.parametrize(("runtime", "module"), [("openvino", "openvino"), ("ncnn", "ncnn"), ("mnn", "MNN")])
def test_other_runtimes_answer_as_onnx_runtime(
    runtime: str, module: str, cases: ModuleType, cache: Cache, transport: Transport
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'edgeprune[bench]'")
    runtimes, folder = load("peer_runtimes"), cases.LENET5.files(cache)
    files = runtimes.prepared(cache, folder / cases.ONNX_FILE, IMAGE, [runtime], 1)[runtime]
    image = np.fromfile(folder / INPUT_FILE, np.float32).reshape(IMAGE)
    with runtimes.start(transport, runtime, "", 1, None) as worker:
        worker.load(transport.push(files)[0], 1)
        worker.bind([(transport.push([folder / INPUT_FILE])[0], image)])
        worker.check(1)
        (again,) = worker.check(1)  # the input is still there
    np.testing.assert_allclose(again, np.load(folder / REFERENCE_FILE), rtol=1e-4, atol=1e-5)


def test_rows_come_back_from_the_file(rows: ModuleType, tmp_path: Path) -> None:
    timed = rows.Row("resnet20", "dense", 1, "mnn", "mnn 3", "abc", "ok", "", 1e-7, (1.25, 2.5))
    failed = rows.Row("resnet20", "dense", 2, "ncnn", "", "abc", "failed", 'it said "no", twice')
    rows.write([timed, failed], tmp_path / "rows.csv")
    assert rows.read(tmp_path / "rows.csv") == [timed, failed]
    assert rows.read(tmp_path / "none.csv") == []


def test_ratios_are_geometric_means_over_rounds_and_networks(rows: ModuleType) -> None:
    even = rows.against([([1.0, 4.0], [1.0, 1.0])])
    assert even.middle == pytest.approx(2.0)
    assert even.low is not None
    assert even.low < 1.1
    assert even.high > 3.9
    both = rows.against([([1.0, 4.0], [1.0, 1.0]), ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])])
    assert both.middle == pytest.approx(1.0)
    assert str(rows.against([([3.0], [2.0])])) == "1.50"


def unit(rows: ModuleType, network: str, form: str, latencies: dict[str, float | str]) -> list[object]:
    """Rows of one network: for each runtime a latency, or a status."""
    return [
        rows.Row(network, form, 1, name, "", "", "ok", round_ms=(taken, taken))
        if isinstance(taken, float)
        else rows.Row(network, form, 1, name, "", "", taken, "its reason")
        for name, taken in latencies.items()
    ]


def test_the_page_compares_with_the_fastest_that_is_right(rows: ModuleType, tmp_path: Path) -> None:
    page = load("compile_page")
    latencies = {"onnxruntime": 2.0, "openvino": 4.0, "ncnn": "wrong", "mnn": 3.0, "native": 1.0, "tvm": 3.0}
    made = unit(rows, "resnet18", "dense", latencies)
    made += unit(rows, "resnet18", "shrunk", {"onnxruntime": 1.0, "native": 1.1, "tvm": 0.5})
    rows.write(made, tmp_path / page.LATENCY_FILE)
    page.write_page(tmp_path)
    text = (tmp_path / page.PAGE_FILE).read_text()
    assert "| resnet18, dense | 1 | **2** | 4 | wrong | 3 | 1 | 3 | 0.50 (0.50 - 0.50) | 1.50 (1.50 - 1.50) |" in text
    assert "| native | dense | 1 | 0.50 (0.50 - 0.50) | 1 | 0.50 (resnet18) | met |" in text
    assert "| tvm | dense | 1 | 1.50 (1.50 - 1.50) | 1 | 1.50 (resnet18) | missed |" in text
    assert "| native | shrunk | 1 | 1.10 (1.10 - 1.10) | 1 | 1.10 (resnet18) | missed |" in text
    assert "- resnet18, dense, 1 threads, ncnn: wrong: its reason" in text


def test_rows_of_another_compiler_or_of_fewer_rounds_are_measured_again(
    peers: ModuleType, rows: ModuleType, cases: ModuleType
) -> None:
    (case,) = cases.chosen(["resnet20"], ["dense"])
    now = [
        rows.Row("resnet20", "dense", 1, name, "", peers.code(), "ok", round_ms=(2.0, 3.0)) for name in ("mnn", "tvm")
    ]
    now.append(rows.Row("resnet20", "dense", 1, "ncnn", "", peers.code(), "wrong"))
    before = [rows.Row("resnet20", "dense", 1, "tvm", "", "another", "ok")]
    assert peers.is_done(now, case, 1, ["mnn", "tvm", "ncnn"], 2)
    assert not peers.is_done(now, case, 1, ["mnn", "tvm"], 3)
    assert not peers.is_done(now, case, 2, ["mnn", "tvm"], 2)
    assert not peers.is_done(now, case, 1, ["mnn", "openvino"], 2)
    assert not peers.is_done(before, case, 1, ["tvm"], 2)


def test_instructions_that_moved_are_told(tmp_path: Path) -> None:
    instructions = load("instructions")
    before = [instructions.Count("resnet20", "dense", "rpi4", 10_000_000, 2, 1)]
    after = [
        instructions.Count("resnet20", "dense", "rpi4", 9_000_000, 2, 1),
        instructions.Count("lenet5", "dense", "rpi2", 5_000, 2, 1),
    ]
    assert instructions.moved(before, before) == []
    assert instructions.moved(before, after) == [
        "resnet20 dense, rpi4: 10,000,000 -> 9,000,000 instructions (-10.0%)",
        "lenet5 dense, rpi2: 5,000 instructions, new",
    ]
    instructions.write(after, tmp_path / "instructions.csv")
    assert instructions.read(tmp_path / "instructions.csv") == after[::-1]  # in the order of the networks


def test_memory_beyond_what_was_planned(tmp_path: Path) -> None:
    footprint, page = load("footprint"), load("compile_page")
    sizes = [size * 1024 for size in (300, 200, 50, 10, 400, 9216)]
    here = footprint.Footprint("local", "host", "resnet20", "dense", *sizes)
    there = footprint.Footprint("virtual-pi-vm", "rpi4", "resnet20", "dense", *sizes[:-1], None)
    assert here.subject != there.subject
    footprint.write([there, here], tmp_path / page.FOOTPRINT_FILE)
    assert footprint.read(tmp_path / page.FOOTPRINT_FILE) == [there, here]
    page.write_page(tmp_path)
    text = (tmp_path / page.PAGE_FILE).read_text()
    assert "| resnet20, dense | 200 | 100 | 50 | 10 | 400 | 140 | 9,216 |" in text
    assert "| resnet20, dense | virtual-pi-vm | rpi4 | 200 | 100 | 50 | 10 | 400 | 140 |" in text
