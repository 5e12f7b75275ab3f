"""Every method has a test that names it, and the published table says which; what is left out on purpose says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeprune import pruning
from edgeprune.cli import main
from edgeprune.errors import MatrixError
from edgeprune.matrix import spec

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published" / "methods.md"


@pytest.mark.parametrize("name", pruning.methods())
def test_its_file_of_tests_is_there_and_names_it(name: str) -> None:
    entry = pruning.entry(name)
    text = (ROOT / "tests" / "unit" / entry.held_by).read_text()
    # in a request, as a module, or in the name of a test
    module = name.replace("-", "_")
    assert re.search(rf'"{re.escape(name)}"|\b(trained|criteria)\b.*\b{module}\b|def test_\w*{module}_', text), text[
        :200
    ]


def test_the_published_table_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--markdown"]) == 0
    said = capsys.readouterr().out
    assert said == PUBLISHED.read_text(), "edgeprune methods --markdown > results/published/methods.md"
    rows = re.findall(r"^\| `([^`]+)` \|", said, re.MULTILINE)
    assert rows == pruning.methods()
    for file in set(re.findall(r"\]\(([^)]+)\)", said)):
        assert (PUBLISHED.parent / file).is_file()


def test_the_list_names_all_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names[1:] == [*pruning.methods(), "package.module:function", *pruning.NOT_HERE]


def test_a_matrix_that_names_what_is_left_out_is_told_why(tmp_path: Path) -> None:
    text = "name: a\ndata: digits\nmodels: [lenet5]\nprune:\n  - {method: rnp, ratio: 0.5}\nruntimes: [onnxruntime]\n"
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(MatrixError, match=r"a\.yaml:5: .*method rnp is not here: .*none can be shrunk"):
        spec.load(tmp_path / "a.yaml")
