"""The journal keeps every whole record, whatever happens to the file, the disk or the process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import journal
from edgeprune.errors import ResultsError, StorageError
from edgeprune.journal import Journal, decode, encode
from edgeprune.schema import Launch, Session

TEXT = st.text(max_size=40)


def session(name: str) -> Session:
    return Session(session_id=name, started_at="2026-01-01T00:00:00+00:00", command=["x"], versions={}, host={})


def launch(**changes: object) -> Launch:
    fields: dict[str, object] = {
        "session_id": "s", "cell_id": "c", "purpose": "latency", "block": 0, "unit": "u", "order": 0,
        "started_at": "2026-01-01T00:00:00+00:00", "cores": [1], "group": 3, "warmup_ns": [1, 2], "steady": True,
        "samples_ns": [5, 6, 7], "parity_rel": 1e-7, "peak_rss_bytes": None,
    }  # fmt: skip
    return Launch.model_validate(fields | changes)


def write(folder: Path, *records: Session | Launch) -> Path:
    with Journal.open(folder) as writer:
        for record in records:
            writer.append(record)
    return folder / journal.JOURNAL_NAME


@given(name=TEXT, samples=st.lists(st.integers(0, 10**12)), parity=st.floats(0, 1) | st.none())
def test_a_record_comes_back_equal(name: str, samples: list[int], parity: float | None) -> None:
    record = launch(unit=name, samples_ns=samples, parity_rel=parity)
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == record


@given(data=st.data())
def test_one_changed_byte_is_always_noticed(data: st.DataObject) -> None:
    line = bytearray(encode(launch())[:-1])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(journal.JournalError):
        decode(bytes(line))


def test_a_file_cut_anywhere_loses_only_the_record_that_was_cut(tmp_path: Path) -> None:
    records = [session("a"), launch(unit="b" * 50), session("c")]
    path = write(tmp_path / "whole", *records)
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / journal.JOURNAL_NAME).write_bytes(content[:cut])
        # a record whose line lacks only its newline is whole
        whole = sum(cut >= end - 1 for end in ends)
        with Journal.open(folder) as writer:
            writer.append(session("after"))
        contents = journal.read(folder / journal.JOURNAL_NAME)
        assert list(contents.records) == [*records[:whole], session("after")]
        assert contents.problems == ()


def test_a_damaged_line_in_the_middle_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, session("a"), session("b"), session("c"))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"b"', b'"X"')
    path.write_bytes(b"".join(lines))
    contents = journal.read(path)
    assert [record.session_id for record in contents.records] == ["a", "c"]
    assert len(contents.problems) == 1
    assert "line 2" in contents.problems[0]
    assert "checksum" in contents.problems[0]


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with Journal.open(tmp_path):
        assert journal.is_locked(tmp_path)
        with pytest.raises(ResultsError, match=f"process {os.getpid()}") as caught:
            Journal.open(tmp_path)
        assert "--results" in (caught.value.hint or "")
    assert not journal.is_locked(tmp_path)
    Journal.open(tmp_path).close()


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    """A real limit of the kernel on the file's size stands in for the disk: the write itself is cut short."""
    script = f"""
import resource, signal
from pathlib import Path
from tests.unit.test_journal import launch, session
from edgeprune.journal import Journal
from edgeprune.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Journal.open(Path({str(tmp_path)!r})) as writer:
    writer.append(session("kept"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
    try:
        writer.append(launch(samples_ns=list(range(1000))))
    except StorageError as error:
        print(error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "the disk is full" in done.stdout
    assert "run the same command again" in done.stdout
    contents = journal.read(tmp_path / journal.JOURNAL_NAME)
    assert list(contents.records) == [session("kept")]
    assert contents.problems == ()


def test_a_device_without_space_is_told_as_a_full_disk(tmp_path: Path) -> None:
    writer = Journal.open(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._descriptor)
    os.close(full)
    with pytest.raises(StorageError, match="the disk is full"):
        writer.append(session("a"))
    writer.close()


def test_records_that_were_acknowledged_survive_kills_at_random_moments(tmp_path: Path) -> None:
    """A writer is killed 20 times while it appends; it says each record's number once that is written."""
    script = f"""
from pathlib import Path
from tests.unit.test_journal import launch
from edgeprune.journal import Journal
with Journal.open(Path({str(tmp_path)!r})) as writer:
    for number in range(100000):
        writer.append(launch(order=number, samples_ns=list(range(number % 3000))))
        print(number, flush=True)
"""
    dice = random.Random(20)
    acknowledged = 0
    for _ in range(20):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        acknowledged += 1 + child.stdout.read().count(b"\n")
        child.wait()
        child.stdout.close()
    Journal.open(tmp_path).close()
    contents = journal.read(tmp_path / journal.JOURNAL_NAME)
    assert contents.problems == ()
    assert acknowledged <= len(contents.records) <= acknowledged + 20
