"""The functions of `import edgeprune` that are more than one stage's own: run a matrix, compile for a target."""

from __future__ import annotations

from pathlib import Path

from edgeprune import compiling
from edgeprune.compiling import Artifact
from edgeprune.matrix import spec
from edgeprune.matrix.progress import open_progress
from edgeprune.matrix.run import Outcome
from edgeprune.matrix.run import run as run_matrix


def run(matrix: str | Path, results: str | Path | None = None) -> Outcome:
    """Carry out a matrix and write its report, as `edgeprune run` does; the same call again goes on.

    Args:
        matrix: A YAML file, or the name of a matrix that edgeprune brings along.
        results: The results folder; `results/<name>` if left out.

    Raises:
        MatrixError: the matrix says something impossible.
        ResultsError: the folder is in use or holds another run.

    Example:
        >>> import edgeprune as ep
        >>> ep.run("quickstart", results="results/quickstart").count("failed")  # doctest: +SKIP
        0
    """
    from edgeprune.reporting import write_report

    checked = spec.load(spec.find(str(matrix)))
    folder = Path(results) if results is not None else Path("results") / checked.name
    with open_progress() as progress:
        outcome = run_matrix(checked, folder, progress, command=["edgeprune.run", str(matrix)])
    write_report(folder)
    return outcome


def compile(
    path: str | Path,
    target: str = "host",
    threads: int = 1,
    out: str | Path = "compiled",
    runtime: str = "native",
    tuned: str | Path | None = None,
) -> Artifact:
    """Compile an ONNX file for a target, by default to one static program; the artifact's files lie in `out`.

    `tuned` is a folder with what `edgeprune tune` found for the target and as many threads.

    Raises:
        UnknownNameError: no such target or runtime.
        UserError: the runtime cannot use what was tuned, or nothing was for the target.
        CompileError: the compiler refused the network; the message names the operator.
    """
    folder = Path(tuned) if tuned is not None else None
    return compiling.compile_onnx(Path(path), Path(out), runtime=runtime, target=target, threads=threads, tuned=folder)
