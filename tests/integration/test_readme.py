"""What README says is done, in its order, by a user with the installed wheel: files written, commands run."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, Installed

README = (CHECKOUT / "README.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", README, re.S | re.M)


def test_every_kind_of_block_is_known() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "yaml"}


def test_the_commands_of_readme_work(installed: Installed, quickstart: Path) -> None:
    assert quickstart.is_dir()
    ran = []
    for kind, text in BLOCKS:
        name = re.match(r"# (\S+\.\w+)\n", text)
        if name:
            (installed.folder / name.group(1)).write_text(text)
        elif kind == "python":
            (installed.folder / "example.py").write_text(text)
            done = installed.run("python", "example.py")
            assert done.returncode == 0, done.stderr
        elif kind == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                if words[0] == "make":
                    subprocess.run(["make", "--dry-run", *words[1:]], cwd=CHECKOUT, check=True, capture_output=True)
                else:
                    done = installed.run(*words, timeout=400)
                    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                ran.append(line)
    assert "edgeprune run my_matrix.yaml --results results/mine" in ran
    assert (installed.folder / "shrunk.onnx").is_file()
    assert (installed.folder / "results" / "mine" / "report.html").is_file()


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_what_readme_links_to_is_there(path: str) -> None:
    assert (CHECKOUT / path).is_file()
