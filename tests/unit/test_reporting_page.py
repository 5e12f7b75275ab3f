"""The files of a report: figures that a paper can print, and a page that a real browser opens without a network."""

from __future__ import annotations

import html
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import StorageError
from edgeprune.reporting import ReportFiles, write_report
from edgeprune.schema import CellEnd, Launch, Network
from tests.unit import sample_run
from tests.unit.chromium import Page, open_page

FIGURES = ["speedup", "latency", "accuracy", "compression"]
HOSTILE = '<img src=x onerror="throw 1"></td></script><script>throw 2</script> & \\ % _'

CONTRAST = """
(() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(e.tagName + "." + e.className + " " + ratio.toFixed(2));
  }
  return [...new Set(poor)];
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """A quickstart in which one cell failed, with text in it that tries to break out."""
    made = sample_run.records()
    wrong = next(
        one.cell_id for one in made
        if isinstance(one, CellEnd) and one.key.network.variant == "shrunk" and one.key.runtime == "tvm"
    )  # fmt: skip
    made = [
        one.model_copy(update={"status": "failed", "reason": HOSTILE})
        if isinstance(one, CellEnd) and one.cell_id == wrong
        else one.model_copy(update={"notes": [HOSTILE], "uncounted_ops": {"aten::odd": 2}})
        if isinstance(one, Network) and one.key.variant == "dense"
        else one.model_copy(update={"uncounted_ops": {"aten::gather": 1}})
        if isinstance(one, Network) and one.key.variant == "shrunk"
        else one
        for one in made
    ]
    return write_report(sample_run.write_run(tmp_path_factory.mktemp("quickstart"), made))


@pytest.fixture(scope="module")
def page(report: ReportFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(report.html, tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def column(page: Page, table: str, heading: str, attribute: str = "textContent") -> list[str]:
    """The fields of one column as they stand now."""
    what = "dataset.key" if attribute == "key" else "textContent"
    values: list[str] = page.evaluate(
        f"""(() => {{
          const table = document.querySelector("#{table} table");
          const at = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent === "{heading}");
          return [...table.tBodies[0].rows].map((row) => row.cells[at].{what});
        }})()"""
    )
    return values


def click(page: Page, table: str, heading: str) -> str:
    """Click a heading with a real mouse press in the middle of its button; returns the column's aria-sort."""
    find = f'[...document.querySelectorAll("#{table} th")].find((one) => one.textContent === "{heading}")'
    page.evaluate(f'{find}.scrollIntoView({{ block: "center", inline: "center", behavior: "instant" }})')
    box = page.evaluate(
        f"(() => {{ const r = {find}.firstChild.getBoundingClientRect(); return [r.x + r.width / 2, r.y + 8]; }})()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    state: str = page.evaluate(f'{find}.getAttribute("aria-sort")')
    return state


def test_the_page_loads_without_errors_and_without_a_network(page: Page) -> None:
    assert page.errors == []
    assert all(url.startswith(("file://", "data:")) for url in page.requests)
    assert sum(url.startswith("file://") for url in page.requests) == 1


def test_all_figures_are_there_and_told_in_words(page: Page) -> None:
    shown = page.evaluate("[...document.images].map((one) => [one.naturalWidth, one.width, one.alt])")
    assert len(shown) == 4
    for natural, width, alt in shown:
        assert natural > 100
        assert width > 100
        assert "LeNet-5, ResNet-20" in alt


def test_the_answer_stands_first(page: Page, report: ReportFiles) -> None:
    said = page.evaluate('document.querySelector("header .answer").textContent').replace("\u00a0", " ")
    assert said == report.answer
    assert "% of the filters promises" in said


def test_tables_sort_by_a_click_up_then_down(page: Page) -> None:
    page.show(1280)
    for table, heading in (("pairs", "Real"), ("cells", "Latency (ms)"), ("networks", "MACs")):
        before = column(page, table, heading, "key")
        known = sorted(float(value) for value in before if value)
        assert len(known) > 5
        unknown = [""] * before.count("")
        assert click(page, table, heading) == "ascending"
        after = column(page, table, heading, "key")
        assert [float(value) for value in after if value] == known
        assert after[len(known) :] == unknown
        assert click(page, table, heading) == "descending"
        after = column(page, table, heading, "key")
        assert [float(value) for value in after if value] == known[::-1]
        assert after[len(known) :] == unknown
    assert click(page, "networks", "Network") == "ascending"
    names = column(page, "networks", "Network")
    assert names == sorted(names)
    assert page.evaluate('document.querySelectorAll("#networks th[aria-sort=none]").length') == 8


def test_a_failed_cell_is_told_with_its_reason_and_its_text_stays_text(page: Page) -> None:
    assert page.evaluate('document.querySelector("ul.wrong").textContent').count(HOSTILE) == 1
    assert page.evaluate('document.querySelectorAll("#trust img, #trust script").length') == 0
    assert column(page, "cells", "Status").count("failed") == 1
    said = page.evaluate('document.querySelector("#trust").textContent')
    assert said.count("operations that its MACs leave out: aten::gather, aten::odd") == 2
    assert "throttled" in said
    assert "Noise: half of the 95\u00a0% interval" in said


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_phone_and_laptop_and_every_text_can_be_read(page: Page, width: int, dark: bool) -> None:
    page.show(width, dark)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every((one) => one.getBoundingClientRect().height > 120)")
    # WCAG 2.1, 1.4.3: 4.5 to 1 for text
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(21, 24, 28)") is dark


def test_the_page_is_well_made(page: Page, report: ReportFiles) -> None:
    assert page.evaluate("document.compatMode") == "CSS1Compat"
    identities = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(identities) == len(set(identities))
    assert page.evaluate("[...document.querySelectorAll('th')].every((one) => one.scope === 'col')")
    links = page.evaluate("[...document.links].map((one) => one.getAttribute('href'))")
    for link in links:
        assert link[1:] in identities if link.startswith("#") else (report.html.parent / link).is_file()
    assert "http" not in report.html.read_text().replace("http-equiv", "")


def test_every_figure_is_written_in_three_forms_with_its_fonts_inside(report: ReportFiles) -> None:
    assert list(report.figures) == FIGURES
    for name, forms in report.figures.items():
        pdf, svg, png = (forms[form].read_bytes() for form in ("pdf", "svg", "png"))
        assert pdf.startswith(b"%PDF-")
        # a Type 3 font is what publishers refuse
        assert b"/CIDFontType2" in pdf
        assert b"/Type3" not in pdf
        assert b"CreationDate" not in pdf
        assert b"<svg" in svg
        assert b"<dc:date>" not in svg
        assert png.startswith(b"\x89PNG")
        width, _ = struct.unpack(">II", png[16:24])
        assert width in (
            (1020, 2100) if name == "latency" else (1020,) if name in ("speedup", "compression") else (2100,)
        )


def test_latex_tables_have_equally_many_fields_in_every_row(report: ReportFiles) -> None:
    for path in report.tables.values():
        text = path.read_text()
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 10
        assert len({line.count(" & ") for line in lines}) == 1
        columns = text[text.index("@{}") + 3 : text.rindex("@{}")]
        assert len(columns) == lines[0].count(" & ") + 1
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\bottomrule") == 1


def test_equal_journals_give_equal_files_and_nothing_is_left_behind(report: ReportFiles) -> None:
    folder = report.html.parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("what", ["nothing", "one model", "networks only", "no dense", "one launch", "all failed"])
def test_a_poor_run_still_gives_a_report(tmp_path: Path, what: str) -> None:
    made = [] if what == "nothing" else sample_run.records(["resnet20"], [0.5], ["onnxruntime"])
    drawn = FIGURES
    if what == "nothing":
        drawn = []
    elif what == "networks only":
        made, drawn = [one for one in made if isinstance(one, Network)], ["accuracy", "compression"]
    elif what == "no dense":
        made = [one for one in made if not (isinstance(one, Network) and one.key.variant == "dense")]
        drawn = ["speedup", "latency", "accuracy"]
    elif what == "one launch":
        made = [one for one in made if not (isinstance(one, Launch) and one.block > 0)]
    elif what == "all failed":
        made = [
            one.model_copy(update={"status": "failed", "reason": "no"}) if isinstance(one, CellEnd) else one
            for one in made
        ]
        drawn = ["accuracy", "compression"]
    report = write_report(sample_run.write_run(tmp_path / "run", made))
    assert list(report.figures) == drawn
    assert report.html.stat().st_size > 5000
    assert report.answer.endswith(".")
    assert ("no interval" in report.answer) is (what == "one launch")


def test_lines_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    folder = sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"], [0.5], ["tvm"]))
    whole = write_report(folder)
    assert whole.problems == ()
    assert "left out</a>" not in whole.html.read_text()
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join([*lines[:-1], b"not a record\n"]))
    damaged = write_report(folder)
    assert len(damaged.problems) == 1
    text = damaged.html.read_text()
    assert "1 record left out</a>" in text
    assert damaged.problems[0] in html.unescape(text)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = sample_run.write_run(tmp_path / "run", sample_run.records(["lenet5"], [0.5], ["tvm"]))
    (folder / "figures").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="figures"):
        write_report(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
