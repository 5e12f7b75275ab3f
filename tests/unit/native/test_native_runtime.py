"""The C runtime of static programs, on a network written by hand: types, ports, threads, errors; under sanitizers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.resources import devices_folder
from edgeprune.transport.answers import line_of

HERE = Path(__file__).parent
LENGTH = 1000
NUMBERS = np.random.default_rng(0).integers(-1000, 1000, LENGTH)
FACTORS = np.array([3, -2, 0, 1], np.int8)
SCALED = NUMBERS * np.resize(FACTORS.astype(np.int64), LENGTH)
REPEATED = 6  # how often the kernel `many` is given its output


def build(folder: Path, *flags: str) -> Path:
    """The runtime with the network by hand, by this machine's compiler."""
    program = folder / "program"
    sources = [*(devices_folder() / "native").glob("*.c"), HERE / "two_ports.c"]
    command = [
        shutil.which("cc") or "gcc",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-g",
        "-O1",
        "-pthread",
        *flags,
    ]
    command += [f"-I{devices_folder() / 'native'}", *map(str, sources), "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("native"), "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture
def bound(tmp_path: Path) -> list[str]:
    """The options that name the two inputs."""
    NUMBERS.tofile(tmp_path / "numbers.bin")
    FACTORS.tofile(tmp_path / "factors.bin")
    return ["--input", str(tmp_path / "numbers.bin"), "--input", str(tmp_path / "factors.bin")]


def run(program: Path, *words: str, fail: str = "", given: str = "") -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the lines of a run."""
    environment = {**os.environ, "EDGEPRUNE_FAIL": fail}
    done = subprocess.run(
        [str(program), *words], capture_output=True, text=True, env=environment, input=given, timeout=60
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_facts(program: Path) -> None:
    status, (facts,) = run(program, "facts")
    assert status == 0
    assert facts["model"] == "two \\ ports"
    assert facts["inputs"] == [
        {"name": "numbers", "dtype": "int64", "shape": [LENGTH]},
        {"name": 'fac"tors', "dtype": "int8", "shape": [4]},
    ]
    assert facts["outputs"][0] == {"name": "signs", "dtype": "bool", "shape": [10, 100]}
    assert facts["workspace_bytes"] == 8 * LENGTH


def test_a_line_is_whole_however_long(tmp_path: Path) -> None:
    target = "my 'board' \\" + "x" * 5000
    program = build(tmp_path, "-DTARGET=" + json.dumps(target), "-fsanitize=address,undefined")
    status, (facts,) = run(program, "facts")
    assert status == 0
    assert facts["target"] == target
    assert facts["outputs"][0]["name"] == "signs"


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
def test_numbers_are_right_on_any_number_of_threads(
    program: Path, bound: list[str], tmp_path: Path, threads: int
) -> None:
    out = [tmp_path / "signs.bin", tmp_path / "scaled.bin"]
    named = [word for path in out for word in ("--output", str(path))]
    status, (answer,) = run(program, "check", *bound, *named, "--threads", str(threads))
    assert (status, answer["ok"]) == (0, "check")
    assert answer["workspace_peak_bytes"] == 8 * LENGTH
    scaled = np.fromfile(out[1], np.int64)
    np.testing.assert_array_equal(scaled[1:], SCALED[1:])
    assert scaled[0] == SCALED[0] + REPEATED
    np.testing.assert_array_equal(np.fromfile(out[0], np.bool_), SCALED > 0)


def test_threads_do_not_race(tmp_path: Path, bound: list[str]) -> None:
    program = build(tmp_path, "-fsanitize=thread")
    status, lines = run(program, "measure", "--samples", "200", "--seconds", "0", "--threads", "4", *bound)
    assert status == 0, lines
    assert lines[-1]["ok"] == "measure"


def test_measure_gives_every_sample(program: Path, bound: list[str]) -> None:
    words = ["--samples", "301", "--seconds", "0", "--group", "2", "--warmup", "3", "--threads", "2"]
    status, lines = run(program, "measure", *words, *bound)
    assert status == 0
    assert lines[0]["warmup"] == 3
    samples = [sample for line in lines for sample in line.get("samples_ns", [])]
    assert len(samples) == 301
    assert min(samples) > 0
    end = lines[-1]
    assert (end["ok"], end["group"]) == ("measure", 2)
    assert end["peak_rss_bytes"] > 0
    assert {"minor_faults", "major_faults"} <= end.keys()


def test_measure_lasts_as_long_as_asked(program: Path) -> None:
    began = time.monotonic()
    status, lines = run(program, "measure", "--samples", "1", "--seconds", "0.3")
    assert status == 0
    assert time.monotonic() - began >= 0.3
    assert sum(sum(line.get("samples_ns", [])) for line in lines) >= 0.3e9 * 0.5


def test_serve_speaks_the_protocol_of_the_workers(program: Path, bound: list[str], tmp_path: Path) -> None:
    out = [str(tmp_path / 'si"gns.bin'), str(tmp_path / "größer.bin")]
    requests: list[dict[str, Any]] = [
        {"op": "load", "model": "any", "threads": 2},
        {"op": "bind", "inputs": [{"path": path, "shape": [1], "dtype": "int8"} for path in bound[1::2]]},
        {"op": "check", "outputs": out},
        {"op": "time", "group": 3, "samples": 200, "seconds": 0.0, "lead": 2},
        {"op": "memory", "calls": 2},
        {"op": "quit"},
    ]
    given = b"".join(map(line_of, requests)).decode()
    status, lines = run(program, "serve", "--threads", "2", given=given)
    assert status == 0
    assert [line["ok"] for line in lines if "ok" in line] == ["load", "bind", "check", "time", "memory", "quit"]
    assert lines[2]["outputs"][0] == {"path": out[0], "dtype": "bool", "shape": [10, 100]}
    assert sum(len(line.get("samples_ns", [])) for line in lines) == 200
    np.testing.assert_array_equal(np.fromfile(out[0], np.bool_), SCALED > 0)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 64, "no mode"),
        (["fly"], 64, "unknown mode: fly"),
        (["check", "--input"], 64, "no value for: --input"),
        (["check", "--speed", "9"], 64, "unknown, or has a bad value: 9"),
        (["measure", "--samples", "0", "--seconds", "1"], 64, "bad value: 0"),
        (["measure", "--samples", "1.5", "--seconds", "1"], 64, "bad value: 1.5"),
        (["measure", "--samples", "1", "--seconds", "nan"], 64, "bad value: nan"),
        (["measure", "--samples", "1", "--seconds", "1", "--cores", "1,x"], 64, "bad value: 1,x"),
        (["measure", "--samples", "1", "--seconds", "1", "--threads", "65"], 64, "bad value: 65"),
        (["check"], 64, "takes 2 inputs, 0 were given"),
        (["check", "--input", "nothing.bin", "--input", "nothing.bin"], 66, "cannot open nothing.bin"),
    ],
)
def test_misuse_is_told(program: Path, words: list[str], status: int, told: str) -> None:
    found, lines = run(program, *words)
    assert found == status
    assert told in lines[-1]["message"]


def test_files_must_fit(program: Path, bound: list[str], tmp_path: Path) -> None:
    NUMBERS[:-1].tofile(tmp_path / "numbers.bin")
    status, lines = run(program, "check", *bound)
    assert status == 65
    assert "holds 7992 bytes; the input numbers takes 8000" in lines[-1]["message"]
    NUMBERS.tofile(tmp_path / "numbers.bin")
    status, lines = run(program, "check", *bound, "--output", "/dev/full", "--output", str(tmp_path / "b.bin"))
    assert status == 73
    assert "cannot write /dev/full" in lines[-1]["message"]


@pytest.mark.parametrize(
    ("part", "told"),
    [("kernel", "positive failed with 3"), ("task", "scale failed with 7"), ("memory", "scale failed with -1")],
)
@pytest.mark.parametrize("threads", ["1", "4"])
def test_errors_of_kernels_and_of_tasks_end_the_run(program: Path, part: str, told: str, threads: str) -> None:
    words = ["measure", "--samples", "5", "--seconds", "0", "--warmup", "0", "--threads", threads]
    status, lines = run(program, *words, fail=part)
    assert status == 1
    assert told in lines[-1]["message"]


def test_a_processor_without_the_instructions_is_refused(tmp_path: Path) -> None:
    program = build(tmp_path, '-DFEATURES="warp9"')
    status, lines = run(program, "measure", "--samples", "1", "--seconds", "0")
    assert status == 69
    assert "no warp9" in lines[-1]["message"]


def test_this_machine_has_what_its_own_target_names(tmp_path: Path) -> None:
    from edgeprune import compiling

    features = " ".join(compiling.target("host").features)
    program = build(tmp_path, f'-DFEATURES="{features}"')
    assert run(program, "measure", "--samples", "1", "--seconds", "0")[0] == 0


def test_no_memory_is_told(tmp_path: Path) -> None:
    program = build(tmp_path)
    limited = f"ulimit -v 60000; exec {program} measure --samples 1 --seconds 0 --threads 64"
    done = subprocess.run(["sh", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 71
    assert "no memory for 64 threads" in done.stderr


def test_a_polite_end_is_obeyed(program: Path) -> None:
    with subprocess.Popen([str(program), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"op":"load","model":"x","threads":1}\n')
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
