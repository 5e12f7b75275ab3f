"""The import law of the design: who may import whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "edgeprune"
BASE = {
    "errors",
    "schema",
    "journal",
    "manifest",
    "storage",
    "resources",
    "evaluation",
    "user_code",
    "lines",
    "profiles",
}
STAGES = {
    "models", "datasets", "training", "pruning", "shrinking", "counting", "exporting", "compiling", "transport",
    "measuring", "emulation", "standins", "diagnosis",
}  # fmt: skip
HEAVY = ("torch", "tvm", "onnx", "onnxruntime", "pandas", "matplotlib", "sklearn")


def imports(path: Path) -> list[str]:
    """Names of edgeprune's modules that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += (
                [f"edgeprune.{alias.name}" for alias in node.names] if node.module == "edgeprune" else [node.module]
            )
    return [name for name in found if name.split(".")[0] == "edgeprune"]


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        there = name.split(".")[1] if "." in name else ""
        if there in ("", here, "__version__"):
            continue
        if here in BASE:
            assert there in BASE, f"{here} is below {there}"
        elif here in STAGES:
            assert there in BASE | STAGES, f"stage {here} imports {there}"
            if there in STAGES:
                assert name.count(".") == 1, f"{here} imports the inside of {there}: {name}"
        elif here == "reporting":
            assert there in BASE | {"measuring"}, f"reporting imports {there}"
        elif here == "matrix":
            assert there in BASE | STAGES, f"matrix imports {there}"
            if there in STAGES:
                assert name.count(".") == 1, f"matrix imports the inside of {there}: {name}"


def test_devices_import_nothing_of_edgeprune() -> None:
    for path in (PACKAGE.parent / "devices").rglob("*.py"):
        assert imports(path) == [], path


@pytest.mark.parametrize(
    "statement",
    [
        "import edgeprune",
        "import edgeprune.measuring",
        "import edgeprune.journal, edgeprune.schema, edgeprune.transport, edgeprune.compiling, edgeprune.exporting",
        "from edgeprune import models, datasets, pruning; models.names(), datasets.names(), pruning.methods()",
        "import edgeprune.matrix.spec, edgeprune.matrix.run",
    ],
)
def test_light_things_load_no_framework(statement: str) -> None:
    check = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reporting_loads_neither_torch_nor_tvm() -> None:
    check = "import sys, edgeprune.reporting; print([name for name in ('torch', 'tvm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_but_the_command_itself() -> None:
    check = (
        "import sys\nfrom edgeprune.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {(*HEAVY, 'numpy', 'pydantic', 'rich', 'yaml')!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
