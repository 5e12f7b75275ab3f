"""The contract of every transport, over each way of `conftest.WAYS`."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from edgeprune.errors import RemoteError, TransportError, UserError
from edgeprune.transport import LocalTransport, Transport, Worker, connect
from tests.contract.conftest import Way
from tests.processes import soon

PATIENCE = 60.0
"""Seconds that an emulated device may take to answer."""


def doubling_model(path: Path) -> Path:
    """An ONNX file that answers x + x."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "with space", "quote'\"$(x)`y`", "ümlaut\nnewline"])
def test_a_file_comes_back_as_it_was_whatever_its_name(transport: Transport, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(os.urandom(100_000))
    (remote,) = transport.push([source])
    transport.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_files_that_belong_together_lie_together(transport: Transport, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first, second = transport.push([tmp_path / "a", tmp_path / "b"])
    assert Path(first).parent == Path(second).parent
    assert transport.push([tmp_path / "a", tmp_path / "b"]) == [first, second]


def test_what_was_discarded_is_pushed_again_where_it_is_wanted(transport: Transport, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "model").write_text("model")
    (kept,) = transport.push([tmp_path / "kept"])
    (model,) = transport.push([tmp_path / "model"])
    transport.discard(model)
    assert transport.push([tmp_path / "model"]) == [model]
    for remote in (kept, model):
        transport.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_text() == Path(remote).name


def test_a_missing_file_is_told(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="nothing-here"):
        transport.pull(transport.remote_path("nothing-here"), tmp_path / "x")


def test_the_folder_is_private_and_empty_afterwards(transport: Transport, way: Way, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (remote,) = transport.push([tmp_path / "f"])
    folder = private_folder(way, remote)
    assert way.look(["ls", "-ld", folder]).startswith(b"drwx------")
    transport.close()
    left = {name.split("-")[0] for name in way.look(["ls", "-A", folder]).decode().split()}
    assert left <= {"lock", "leases", "agent"}
    transport.close()


def private_folder(way: Way, remote: str) -> str:
    """The outermost private folder above a pushed file."""
    parents = [str(parent) for parent in Path(remote).parents]
    private = [one for one in parents if way.look(["ls", "-ld", one]).startswith(b"drwx------")]
    return [one for one in private if "edgeprune" in Path(one).name or Path(one).name == "device-local"][-1]


def test_cleaning_leaves_nothing(transport: Transport, way: Way, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    folder = Path(private_folder(way, *transport.push([tmp_path / "f"])))
    transport.clean()
    assert folder.name not in way.look(["ls", "-A", str(folder.parent)]).decode().split()


def test_a_device_serves_one_run_at_a_time(transport: Transport, way: Way) -> None:
    other = way.connect()
    assert not other.acquire()
    assert str(os.getpid()) in other.holder()
    transport.check_lease()
    assert transport.acquire()
    transport.close()
    assert other.acquire()
    other.close()


def test_a_run_that_waited_while_this_machine_was_cleaned_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path))
    lock = tmp_path / "device-local" / "lock"
    holding, waiting, third = (LocalTransport() for _ in range(3))
    assert holding.acquire()

    def opened() -> int:
        files = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(file.exists() and file.samefile(lock) for file in files)

    with ThreadPoolExecutor() as pool:
        taken = pool.submit(waiting.acquire, 60.0)
        assert soon(lambda: opened() == 2)
        holding.clean()
        assert taken.result()
    assert not third.acquire()
    waiting.close()
    assert third.acquire()
    third.close()


def test_unknown_devices_are_named() -> None:
    with pytest.raises(UserError, match="unknown device 'lokal'"):
        connect("lokal")


# --- facts ------------------------------------------------------------------------------------------------------------


def test_facts_agree_with_psutil_and_python(transport: Transport, way: Way) -> None:
    """Stand-ins share this machine's kernel, cores and memory."""
    facts = transport.facts()
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert {core["core"] for core in facts["cores"]} == os.sched_getaffinity(0)
    assert facts["machine"] == way.machine
    assert facts["kernel"] == f"{os.uname().sysname} {os.uname().release}"
    assert (facts["emulated"] is None) == (way.machine == os.uname().machine)


# --- programs ---------------------------------------------------------------------------------------------------------


def test_a_worker_loads_checks_times_and_says_why_it_dies(transport: Transport, way: Way, tmp_path: Path) -> None:
    if not way.has_python:
        with pytest.raises(RemoteError, match="not found") as missing:
            Worker.start(transport, "onnxruntime", None)
        assert "the runtime native needs none" in (missing.value.hint or "")
        return
    x = np.array([[1.0, -2.0, 3.0]], dtype=np.float32)
    x.tofile(tmp_path / "x.bin")
    (model,) = transport.push([doubling_model(tmp_path / "m.onnx")])
    (vector,) = transport.push([tmp_path / "x.bin"])
    cores = [max(os.sched_getaffinity(0))]
    with Worker.start(transport, "onnxruntime", cores) as worker:
        worker.load(model, threads=1)
        worker.bind([(vector, x)])
        (y,) = worker.check(1)
        np.testing.assert_array_equal(y, 2 * x)
        taken = worker.time(group=7, samples=400, seconds=0.0, lead=1)
        assert len(taken.samples_ns) == 400
        assert all(sample > 0 for sample in taken.samples_ns)
        longer = worker.time(group=1, samples=1, seconds=0.2)
        assert sum(longer.samples_ns[:-1]) <= 0.2e9
        assert len(longer.samples_ns) > 1
        assert 10e6 < worker.peak_rss_bytes(3) < 500e6
        assert worker.cores == cores
        assert "onnxruntime" in worker.versions
    (tmp_path / "bad.onnx").write_bytes(b"this is no model")
    (bad,) = transport.push([tmp_path / "bad.onnx"])
    with Worker.start(transport, "onnxruntime", None) as worker:
        with pytest.raises(RemoteError, match=r"InvalidProtobuf|INVALID_PROTOBUF") as caught:
            worker.load(bad, threads=1)
        assert "Traceback" in (caught.value.detail or "")


def test_a_program_s_arguments_arrive_as_they_are(transport: Transport) -> None:
    arguments = ["it's", "$(id)", "`id`", "a b", "*", "\\\\", "-n", "ü"]
    script = 'for a; do printf "%s\\n" "$a" | sed \'s/.*/{"a":"&"}/\'; done'
    channel = transport.run(["sh", "-c", script, "sh", *arguments], None)
    assert [channel.receive(PATIENCE)["a"] for _ in arguments] == [one.replace("\\\\", "\\") for one in arguments]
    channel.stop()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -9 $$", "signal 9"),
        ("echo hello", "not an answer: 'hello'"),
        ("exit 3", "status 3"),
        ("echo '[1]'", "not an"),
    ],
)
def test_what_is_no_answer_is_told(transport: Transport, script: str, words: str) -> None:
    channel = transport.run(["sh", "-c", script], None)
    with pytest.raises(RemoteError, match=words):
        channel.receive(PATIENCE)
    channel.stop()


def test_a_program_that_is_not_there_is_told(transport: Transport) -> None:
    channel = transport.run(["/nowhere/program"], None)
    with pytest.raises(RemoteError, match="not found"):
        channel.receive(PATIENCE)
    channel.stop()


@pytest.mark.parametrize("cores", [None, [0]])
def test_a_program_of_another_architecture_is_told(
    transport: Transport, way: Way, tmp_path: Path, cores: list[int] | None
) -> None:
    """Its header is enough; what the emulated devices refuse here, this machine's kernel would start."""
    made_for = 183 if way.machine == "x86_64" else 62
    (tmp_path / "program").write_bytes(b"\x7fELF\2\1\1".ljust(16, b"\0") + bytes([2, 0, made_for, 0]) + bytes(44))
    channel = transport.run(transport.push([tmp_path / "program"]), cores)
    with pytest.raises(RemoteError, match="wrong architecture: it is made for"):
        channel.receive(PATIENCE)
    channel.stop()


def test_silence_ends_in_a_transport_error(transport: Transport) -> None:
    channel = transport.run(["sleep", "60"], None)
    with pytest.raises(TransportError, match="no answer"):
        channel.receive(1.0)
    channel.stop()


def test_a_hung_program_is_silent_whatever_its_agent_says(transport: Transport) -> None:
    """The agent answers signs of life and tells temperatures, once a second."""
    says = 'while :; do echo \'{"event":"alive"}\'; sleep 0.2; done'
    channel = transport.run(["sh", "-c", says], None)
    with pytest.raises(TransportError, match="no answer for 5 s"):
        channel.receive(5.0)
    channel.stop()


def test_what_is_under_way_can_be_ended_from_another_thread(transport: Transport, way: Way) -> None:
    channel = transport.run(["sh", "-c", "echo '{\"pid\":'$$'}'; exec sleep 600"], None)
    pid = str(channel.receive(PATIENCE)["pid"])
    threading.Timer(0.5, transport.abort).start()
    with pytest.raises((TransportError, RemoteError)):
        channel.receive(500)
    channel.stop()
    transport.close()
    assert way.look(["sh", "-c", 'kill -0 "$1" 2>/dev/null || echo gone', "sh", pid]) == b"gone\n"
