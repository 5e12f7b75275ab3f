"""Whole runs on the emulated machine, which is reset or runs out of memory in the middle of a launch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.standins import machine
from tests.integration.test_device_run import MATRIX, cells, edgeprune
from tests.standins import Reached

CATCH = """
while :; do
  for found in $(grep -lzx serve /proc/[0-9]*/cmdline 2>/dev/null); do
    set -- $(tr '\\0' ' ' <$found)
    number=${found#/proc/} number=${number%/cmdline}
    if [ "$2" = serve ]; then kill -STOP $number && echo $number && exit; fi
  done
done
"""
"""Stops the first worker that it sees, so that its launch lasts until something else happens; tells its number."""


@pytest.fixture
def cache(tmp_path: Path, virtual_vm: Reached) -> Path:
    """A cache in which the running machine is the one that a matrix means by its name."""
    (tmp_path / "cache" / "standins").mkdir(parents=True)
    (tmp_path / "cache" / "standins" / "virtual-pi-vm").symlink_to(virtual_vm.folder)
    return tmp_path / "cache"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A user's folder."""
    one_long_launch = MATRIX.replace("[masked, shrunk]", "[shrunk]\nbatch: [256]")
    (tmp_path / "m.yaml").write_text(one_long_launch.replace("virtual-pi", "virtual-pi-vm"))
    return tmp_path


def run_while(place: Path, cache: Path, vm: Reached, happens: Callable[[str], object]) -> tuple[int, str]:
    """A run in whose first launch that happens, with the worker's number there; its exit status, and what it said."""
    caught: list[str] = []

    def catch() -> None:
        caught.append(vm.run(CATCH, user="root", timeout=600).stdout.decode().strip())
        happens(caught[0])

    beside = threading.Thread(target=catch)
    beside.start()
    done = edgeprune(place, cache, "run", "m.yaml")
    beside.join()
    assert caught[0].isdecimal(), done
    return done


def assert_compared(place: Path) -> None:
    (cell,) = cells(place)
    assert cell["reason"].startswith("emulated: "), cell
    assert float(cell["parity_rel"]) <= 1e-4


def test_a_machine_that_restarts_in_a_launch_is_waited_for(place: Path, cache: Path, virtual_vm: Reached) -> None:
    status, said = run_while(place, cache, virtual_vm, lambda _: machine.reset(virtual_vm.folder))
    assert status == 0, said
    assert "no contact" in said
    assert ", restarted" in said
    assert_compared(place)


def test_a_worker_that_the_kernel_kills_for_memory_fails_its_cell_and_the_next_run_mends_it(
    place: Path, cache: Path, virtual_vm: Reached
) -> None:
    def run_out_of_memory(worker: str) -> None:
        done = virtual_vm.run(f"echo 1000 >/proc/{worker}/oom_score_adj; echo f >/proc/sysrq-trigger", user="root")
        assert done.returncode == 0, done.stderr

    status, said = run_while(place, cache, virtual_vm, run_out_of_memory)
    assert status == 1, said
    (cell,) = cells(place)
    assert "signal 9 (out of memory?)" in cell["reason"]
    status, said = edgeprune(place, cache, "run", "m.yaml")
    assert status == 0, said
    assert_compared(place)
