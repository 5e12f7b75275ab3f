"""From a results folder to tables, figures and a page, read from its journal and manifest alone.

`write_report` does all of it; `load` gives the numbers themselves. Neither torch nor tvm is imported, and matplotlib
only when figures are drawn. Start reading with `results.py`.
"""

from edgeprune.reporting.answer import answer
from edgeprune.reporting.compare import Change, compare
from edgeprune.reporting.report import ReportFiles, write_report
from edgeprune.reporting.results import CellResult, PairResult, Results, load

__all__ = [
    "CellResult",
    "Change",
    "PairResult",
    "ReportFiles",
    "Results",
    "answer",
    "compare",
    "load",
    "write_report",
]
