"""The whole report in one call: every file made from the results, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.reporting.answer import answer
from edgeprune.reporting.results import load
from edgeprune.storage import write_whole


@dataclass(frozen=True)
class ReportFiles:
    """Where the files of a report are, its answer, and what in the journal could not be read.

    `figures` are by name and form, as in figures["speedup"]["pdf"]; one that would be empty is missing. `problems` name
    each damaged line, and are told in report.html too.
    """

    html: Path
    csv: Mapping[str, Path]
    tables: Mapping[str, Path]
    figures: Mapping[str, Mapping[str, Path]]
    answer: str
    problems: tuple[str, ...]


def write_report(results_dir: Path | str) -> ReportFiles:
    """Write cells.csv, pairs.csv, layers.csv, tables/, figures/ and report.html into a results folder.

    Equal journals give equal files. A report may be made while a run is going on: it tells what is finished.

    Raises:
        ResultsError: The folder, its manifest or its journal is missing or unreadable.
        StorageError: The disk is full or the folder cannot be written.

    Example: `write_report("results/quickstart").html`
    """
    # drawing and the page are for this call alone: `load` needs neither matplotlib nor jinja2
    from edgeprune.reporting import figures, html, tables

    folder = Path(results_dir)
    results = load(folder)
    csv = {name: write_whole(folder / name, content) for name, content in tables.csv_files(results).items()}
    latex = {
        name: write_whole(folder / "tables" / name, content) for name, content in tables.latex_files(results).items()
    }
    drawn: dict[str, dict[str, Path]] = {}
    svg: dict[str, bytes] = {}
    for name, figure in figures.draw(results).items():
        encoded = {form: figures.encode(figure, form) for form in figures.FORMATS}
        svg[name] = encoded["svg"]
        drawn[name] = {
            form: write_whole(folder / "figures" / f"{name}.{form}", content) for form, content in encoded.items()
        }
    beside = [*csv, *(f"tables/{name}" for name in latex), "manifest.json", "journal.jsonl"]
    page = write_whole(folder / "report.html", html.page(results, svg, beside).encode())
    return ReportFiles(page, csv, latex, drawn, answer(results), results.problems)
