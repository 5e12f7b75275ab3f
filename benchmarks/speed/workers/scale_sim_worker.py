"""SCALE-Sim's cycles of some convolutions: layers as JSON on stdin, cycles as JSON on stdout.

Runs in an environment of its own (scalesim 3.0.0 needs numpy below 2.4), and imports nothing of edgeprune.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

import own_stdout

CONFIG = """\
[general]
run_name = run
[architecture_presets]
ArrayHeight: {n}
ArrayWidth: {n}
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: {n}
Dataflow: {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 64
WriteRequestBuffer: 64
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: {n}
IfmapSRAMBankNum: 1
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: {n}
FilterSRAMBankNum: 1
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def cycles(layers: list[list[int]], n: int, dataflow: str) -> list[int]:
    """Cycles of each layer [rows, columns, kernel, in, out, stride], borders of the picture within its size."""
    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.cfg").write_text(CONFIG.format(n=n, dataflow=dataflow))
        lines = [
            f"layer{k},{rows},{columns},{kernel},{kernel},{into},{out},{stride},"
            for k, (rows, columns, kernel, into, out, stride) in enumerate(layers)
        ]
        (folder / "topology.csv").write_text("\n".join(["name,h,w,fh,fw,c,n,s,", *lines]) + "\n")
        (folder / "layout.csv").write_text(
            "\n".join(["name", *(f"layer{k}," + "1," * 18 for k in range(len(layers)))]) + "\n"
        )
        paths = {key: str(folder / f"{key}.csv") for key in ("topology", "layout")}
        scalesim(save_disk_space=True, verbose=False, config=str(folder / "run.cfg"), **paths).run_scale(name)
        with (folder / "run" / "COMPUTE_REPORT.csv").open(newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        return [round(float(row["Total Cycles"])) for row in rows]


def main() -> None:
    own_stdout.claim()
    asked = json.load(sys.stdin)
    found = {flow: cycles(asked["layers"], asked["n"], flow) for flow in asked["dataflows"]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
