"""What several tests share: the wheel, installed outside the checkout, and the quickstart that a new user would run.

`make test` runs tests in several processes, each test in the next that is free, but for those of `TOGETHER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.standins import virtual_phone, virtual_pi, virtual_vm

__all__ = ["virtual_phone", "virtual_pi", "virtual_vm"]  # fixtures of all tests

# Before torch and tvm are imported. TVM's threads wait by giving the core away 300,000 times, each time for as long as
# whoever shares it likes: beside other tests that takes minutes. Threads of PyTorch wait for each other too.
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECKOUT = Path(__file__).resolve().parents[1]
QUICKSTART_SECONDS = 1500
MEASURING = "runs that measure, and pin themselves to the same core"
STANDINS = "stand-ins for devices"
TOGETHER = {
    "test_run.py": MEASURING,
    "test_quickstart.py": MEASURING,
    "test_readme.py": MEASURING,
    "test_first_device_pages.py": MEASURING,
    "test_cli_shrink.py": "a masked network",
    "test_emulated_cells.py": "a program under emulation",
    "test_exporting.py": "an exported network",
    "test_instruction_table.py": "compiled networks",
    "test_native_programs.py": "compiled programs",
    "test_native_runtime.py": "a program with sanitizers",
    "test_reporting_page.py": "a browser",
    "test_board_python.py": STANDINS,
    "test_clock_jump.py": STANDINS,
    "test_device_run.py": STANDINS,
    "test_fault_campaign.py": STANDINS,
    "test_doctor.py": STANDINS,
    "test_remote_files.py": STANDINS,
    "test_run_faults.py": STANDINS,
    "test_standin_programs.py": STANDINS,
    "test_governor.py": STANDINS,
    "test_standins.py": STANDINS,
    "test_table3_run.py": STANDINS,
    "test_transport.py": STANDINS,
    "test_virtual_phone.py": STANDINS,
    "test_adb.py": STANDINS,
    "test_shrinking_outside_usable.py": "shrunk networks",
    "test_virtual_machine.py": STANDINS,
    "test_virtual_machine_run.py": STANDINS,
}
"""Files whose tests one process runs, one after the other, with all files that have the same in common."""

LONG = {
    "test_adb.py",
    "test_board_python.py",
    "test_clock_jump.py",
    "test_device_run.py",
    "test_doctor.py",
    "test_fault_campaign.py",
    "test_first_device_pages.py",
    "test_governor.py",
    "test_link_faults.py",
    "test_papers_networks.py",
    "test_remote_files.py",
    "test_run_faults.py",
    "test_standin_programs.py",
    "test_table3_run.py",
    "test_virtual_machine.py",
    "test_virtual_machine_run.py",
}
"""Files of many minutes on two cores, nearly all of them under emulation: `--brief` leaves them out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--brief", action="store_true", help="leave out the files of many minutes, named in conftest.LONG")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--brief"):
        left_out = [item for item in items if item.path.name in LONG]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.path.name not in LONG]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Tests are given to processes one at a time, or with those that they have something in common with."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.partition("::")[0].rpartition("/")[2], nodeid)

    return Together(config, log)


@dataclass(frozen=True)
class Installed:
    """A wheel of this checkout in an environment of its own, and a folder that a user works in."""

    python: Path
    folder: Path

    def run(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the user's folder."""
        program = self.python.parent / words[0]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"EDGEPRUNE_CACHE": str(self.folder / "cache"), "PATH": f"{program.parent}:{os.environ['PATH']}"}
        return subprocess.run(
            [str(program), *words[1:]],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it without this checkout; its dependencies are those of the test environment."""
    place = tmp_path_factory.mktemp("user")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place / "dist"), str(CHECKOUT)],
        check=True,
        capture_output=True,
    )
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    (wheel,) = (place / "dist").glob("*.whl")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    # a path file's directories are searched, but path files in them (such as the checkout's) are not followed
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / "work").mkdir()
    return Installed(python, place / "work")


@pytest.fixture(scope="session")
def quickstart(installed: Installed) -> Path:
    """The results folder of `edgeprune run quickstart`, trained from nothing, run once for all tests."""
    done = installed.run("edgeprune", "run", "quickstart", timeout=QUICKSTART_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return installed.folder / "results" / "quickstart"
