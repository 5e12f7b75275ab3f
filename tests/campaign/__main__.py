"""Faults against a run on an emulated Pi and an emulated phone at once; nothing may be lost, repeated or left behind.

    python -m tests.campaign --faults 200 --seed 0 --out results/published

One matrix is carried out undisturbed, and then again while links are cut, programs killed, devices restarted, disks
filled, leases stolen and the laptop's own process killed. As a user would, the campaign starts the same command again
whenever it has ended; a folder that is complete before the faults are used up is followed by a new one. Written are
`faults.csv`, a line a fault, and `faults.md`, what came of it. Exit status 1 if anything is not as it must be.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from edgeprune.errors import DeviceError
from tests.campaign.faults import KINDS, Fault
from tests.campaign.judge import Verdict, Watch, is_complete, judge
from tests.campaign.sites import SITES, Site
from tests.processes import command_words, has_ended, running

MARK = "EDGEPRUNE_CAMPAIGN"
PATIENCE_SECONDS = 45
_RATIOS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
NOT_HERE = 3
"""Exit status where the stand-ins cannot run on this machine."""
_LAST_TRIES = 6
_GRACE_SECONDS = 15.0
_MATRIX = """\
name: campaign
data: digits
models: [lenet5]
prune:
  - {{method: l1, ratio: {ratios}, seed: 0}}
variants: [masked, shrunk]
runtimes: [native]
devices: [{devices}]
train: {{epochs: 1}}
finetune: {{epochs: 1}}
"""


@dataclass
class Campaign:
    """One campaign on its way: what was done, and what came of it."""

    place: Path
    sites: list[Site]
    cells: int
    dice: random.Random
    faults: list[Fault] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    commands: int = 0
    began: float = field(default_factory=time.monotonic)

    def carry_out(self, wanted: int) -> None:
        """Do that many faults, then let the last folder be finished in peace."""
        undisturbed = self.place / "undisturbed"
        self._finish(undisturbed, Watch())
        while len(self.faults) < wanted:
            folder, watch = self.place / f"round-{len(self.verdicts) + 1}", Watch()
            self._disturb(folder, watch, wanted)
            self._finish(folder, watch)
            self.verdicts.append(judge(folder, undisturbed, watch))
            print(f"{folder.name}: {self.verdicts[-1]}", flush=True)

    def _disturb(self, folder: Path, watch: Watch, wanted: int) -> None:
        run = self._start(folder)
        try:
            while len(self.faults) < wanted:
                if run.poll() is not None:
                    if is_complete(watch.look(folder), self.cells):
                        return
                    run = self._start(folder)
                time.sleep(self.dice.uniform(0.2, 2.0))
                self._strike(run)
        except BaseException:
            run.terminate()
            raise
        finally:
            run.wait()  # what it lacks then, the same command makes

    def _strike(self, run: subprocess.Popen[bytes]) -> None:
        site, kind = self.dice.choice(self.sites), self.dice.choice(sorted(KINDS))
        try:
            detail = KINDS[kind](site, run, self.dice) if run.poll() is None else ""
        except DeviceError:
            detail = ""  # the stand-in is still at the last fault
        if detail:
            at = time.monotonic() - self.began
            self.faults.append(Fault(kind, site.name, round(at, 1), detail))
            print(f"{at:7.1f} s  {len(self.faults):3}  {kind} ({site.name}): {detail}", flush=True)

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        self.commands += 1
        words = ["run", "m.yaml", "--results", str(folder), "--patience", str(PATIENCE_SECONDS)]
        with (self.place / "run.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "edgeprune", *words],
                cwd=self.place, stdout=log, stderr=log, env=os.environ | {MARK: str(self.place)},
            )  # fmt: skip

    def _finish(self, folder: Path, watch: Watch) -> None:
        for _ in range(_LAST_TRIES):
            run = self._start(folder)
            run.wait()
            if is_complete(watch.look(folder), self.cells):
                return

    def leftovers(self) -> list[str]:
        """What is left of the runs on either side, once all had time to end."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _left(self) -> list[str]:
        left = [f"{site.name}: {one}" for site in self.sites for one in site.leftovers()]
        # adb's server was there before, and a client that misses it starts it anew: it is meant to stay
        servers = {process.pid for site in self.sites for process in site.server()}
        ours = running(lambda one: one.environ().get(MARK) == str(self.place) and one.pid not in servers)
        left += [f"here: {' '.join(command_words(one))}" for one in ours if not has_ended(one)]
        return left


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a campaign and write what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratios", type=int, default=len(_RATIOS), help="pruning ratios; two cells each on a device")
    parser.add_argument("--devices", nargs="+", choices=sorted(SITES), default=sorted(SITES))
    parser.add_argument("--place", type=Path, default=Path("results/campaign"), help="folder for runs and stand-ins")
    parser.add_argument("--out", type=Path, default=Path("results/campaign"), help="where faults.md and .csv go")
    given = parser.parse_args(arguments)
    place = given.place.absolute()
    for old in (place / "undisturbed", *place.glob("round-*")):
        shutil.rmtree(old, ignore_errors=True)  # the cache beside them stays
    place.mkdir(parents=True, exist_ok=True)
    os.environ["EDGEPRUNE_CACHE"] = str(place / "cache")
    (place / "m.yaml").write_text(_MATRIX.format(ratios=_RATIOS[-given.ratios :], devices=", ".join(given.devices)))
    sites = [SITES[name]() for name in given.devices]
    try:
        try:
            for site in sites:
                site.up()
        except DeviceError as error:
            print(f"{error.message}; {error.hint or error.detail}", file=sys.stderr)
            return NOT_HERE
        cells = 2 * given.ratios * len(sites)
        campaign = Campaign(place, sites, cells, random.Random(given.seed))
        campaign.carry_out(given.faults)
        left = campaign.leftovers()
    finally:
        for site in sites:
            site.down()
    _write(given.out, campaign, left, given.seed)
    print((given.out / "faults.md").read_text())
    return 1 if left or any(verdict.problems for verdict in campaign.verdicts) else 0


def _write(out: Path, campaign: Campaign, left: Sequence[str], seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "faults.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([one.name for one in fields(Fault)])
        writer.writerows(astuple(fault) for fault in campaign.faults)
    counts = Counter((fault.kind, fault.device) for fault in campaign.faults)
    names = [site.name for site in campaign.sites]
    table = [f"| {kind} | " + " | ".join(str(counts[kind, name]) for name in names) + " |" for kind in KINDS]
    total = {one.name: sum(getattr(v, one.name) for v in campaign.verdicts) for one in fields(Verdict)}
    lines = [
        "# Faults against a run on two emulated devices at once",
        "",
        f"`python -m tests.campaign --faults {len(campaign.faults)} --seed {seed}`: "
        f"a matrix of {campaign.cells} cells,",
        f"carried out {len(campaign.verdicts)} times under {len(campaign.faults)} random faults in "
        f"{(time.monotonic() - campaign.began) / 60:.0f} minutes; the command was started {campaign.commands} times.",
        "",
        "| fault | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
        *table,
        "",
        "| what came of it | |",
        "| --- | ---: |",
        f"| cells, of all rounds | {total['cells']} |",
        f"| cells unfinished | {total['unfinished']} |",
        f"| cells whose parity, instructions or sizes differ from an undisturbed run | {total['unequal']} |",
        f"| records lost from a journal | {total['lost']} |",
        f"| launches or ends repeated | {total['repeated']} |",
        f"| emulated times in a latency or memory column | {total['timed']} |",
        f"| processes and files left, here and on the devices | {len(left)} |",
        *(["", *(f"- {one}" for one in left)] if left else []),
    ]
    (out / "faults.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
