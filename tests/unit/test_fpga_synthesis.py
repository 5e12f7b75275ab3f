"""The committed reports of synthesis are those of the hardware that is committed, and the page says what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from edgeprune.resources import devices_folder

FPGA = devices_folder() / "fpga"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthesise", FPGA / "synthesis" / "synthesise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reports_are_of_this_hardware(script: ModuleType) -> None:
    report = json.loads((FPGA / "synthesis" / "reports.json").read_text())
    today = script.digest(script.sources())
    words = "the hardware has changed: make synthesis"
    assert report["hardware"] == report["routed"]["hardware"] == today, words


def test_the_page_has_the_figures_of_the_reports(script: ModuleType) -> None:
    report = json.loads((FPGA / "synthesis" / "reports.json").read_text())
    page = (FPGA / "README.md").read_text()
    assert script.table(report) in page
    assert f"{report['routed']['fmax_mhz']:.1f} MHz" in page


def test_comments_and_spaces_change_no_digest(script: ModuleType, tmp_path: Path) -> None:
    one, other, third = (tmp_path / name for name in ("one.sv", "other.sv", "third.sv"))
    one.write_text("// a\nmodule x;\n  assign a = b; // c\nendmodule\n")
    other.write_text("module x; /* lint */ assign a = b;\nendmodule")
    third.write_text("module x; assign a = c;\nendmodule")
    assert script.digest([one]) == script.digest([other]) != script.digest([third])


def test_cells_are_counted_as_a_data_sheet_does(script: ModuleType) -> None:
    cells = {"LUT6": 5, "LUT2": 1, "FDRE": 7, "DSP48E1": 2, "RAMB36E1": 3, "RAMB18E1": 1, "CARRY4": 9}
    assert script.used("xc7", cells) == {"LUT": 6, "FF": 7, "DSP": 2, "BRAM": 3.5}
    assert script.used("xc7", {"LUT4": 3, "SRL16E": 2, "RAM32M": 1})["LUT"] == 9
    assert script.used("ecp5", {"LUT4": 5, "CCU2C": 3, "DP16KD": 2}) == {"LUT": 11, "FF": 0, "DSP": 0, "BRAM": 2}
