"""Figure 3 of "Investigating the Not-So-Obvious Effects of Structured Pruning" (Tessier et al., 2022), on the digits.

    python benchmarks/papers/constants.py [--networks resnet20 ...] [--seeds 0 1 2] [--out results/published]

Accuracy against the part of the filters that were pruned, and against the part of the parameters that are gone once the
network is shrunk. Pruned filters leave numbers behind, by the shifts of their batch normalisations; the paper's method
drops them (section 3.1), so its network is another one than the masked: `shrink(..., constants="drop")`. Beside it
stands `constants="exact"`, which keeps them. Networks are trained, pruned by L1 norm in each layer with their
normalisations left alone, and fine-tuned with the masks held; accuracies are of the test split. Start with `measure`.

Rows are added to constants.csv as they are measured; the same command again goes on with the seeds that are not whole.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from torch import nn

import edgeprune as ep
from edgeprune.datasets import Dataset
from edgeprune.reporting.figures import encode
from edgeprune.reporting.plot_size import BY_FILTERS, BY_PARAMETERS
from edgeprune.reporting.plot_style import panels, styled
from edgeprune.reporting.wording import model_name
from edgeprune.training import FINE_TUNE, FROM_SCRATCH

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
EXACT = "#009E73"


@dataclass(frozen=True)
class Row:
    """One masked network and its two shrunk ones; accuracies from 0 to 1, parts of the dense network's.

    `ratio` is what was asked for, 0 for the dense network; `pruned_filters` what it came to.
    """

    network: str
    seed: int
    ratio: float
    pruned_filters: float
    masked_accuracy: float
    exact_accuracy: float
    drop_accuracy: float
    exact_params_gone: float
    drop_params_gone: float
    drop_difference: float


def measure(network: str, seed: int, data: Dataset, ratios: Sequence[float]) -> Iterator[Row]:
    """Train one network, then prune, fine-tune and shrink it at each ratio; the dense network comes first."""
    model = ep.models.build(network, data.num_classes, data.input_shape[0], seed=seed)
    ep.training.train(model, data, FROM_SCRATCH, seed=seed)
    yield Row(network, seed, 0.0, 0.0, **accuracies(model, data))
    image = data.test[0][0].unsqueeze(0)
    for ratio in ratios:
        masks = ep.prune(model, image, method="l1", ratio=ratio, seed=seed, batchnorm="keep")
        masked = masks.apply(model)
        ep.training.train(masked, data, FINE_TUNE, seed=seed, masks=masks)
        yield Row(network, seed, ratio, masks.ratio, **accuracies(masked, data))


def accuracies(masked: nn.Module, data: Dataset) -> dict[str, float]:
    """What a row holds of a masked network in evaluation mode and of its two shrunk ones."""
    image = data.test[0][0].unsqueeze(0)
    exact, drop = ep.shrink(masked, image), ep.shrink(masked, image, constants="drop")
    whole = ep.count(masked, image).params
    return {
        "masked_accuracy": ep.training.accuracy(masked, data.test),
        "exact_accuracy": ep.training.accuracy(exact.model, data.test),
        "drop_accuracy": ep.training.accuracy(drop.model, data.test),
        "exact_params_gone": 1 - ep.count(exact.model, image).params / whole,
        "drop_params_gone": 1 - ep.count(drop.model, image).params / whole,
        "drop_difference": drop.report.difference,
    }


def read(path: Path) -> list[Row]:
    """The rows of an earlier run."""
    if not path.is_file():
        return []
    kinds = {"str": str, "int": int, "float": float}
    of_column = {field.name: kinds[str(field.type)] for field in fields(Row)}
    with path.open(newline="") as file:
        return [Row(**{name: of_column[name](text) for name, text in line.items()}) for line in csv.DictReader(file)]


def write(rows: Sequence[Row], path: Path) -> None:
    """One line a row, under the names of `Row`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def means(rows: Sequence[Row], network: str) -> list[tuple[float, dict[str, float]]]:
    """For each ratio of a network, the means over seeds of all that was measured."""
    own = [row for row in rows if row.network == network]
    names = [field.name for field in fields(Row)][3:]
    return [
        (ratio, {name: fmean(getattr(row, name) for row in own if row.ratio == ratio) for name in names})
        for ratio in sorted({row.ratio for row in own})
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """A panel a network: lines through the means over seeds, and a faint mark for each seed."""
    networks = list(dict.fromkeys(row.network for row in rows))
    curves = (
        ("masked, by pruned filters", BY_FILTERS, "o", "pruned_filters", "masked_accuracy"),
        ("shrunk exactly, by parameters", EXACT, "^", "exact_params_gone", "exact_accuracy"),
        ("shrunk with constants dropped, by parameters", BY_PARAMETERS, "s", "drop_params_gone", "drop_accuracy"),
    )
    made, every = panels(networks, legend_rows=len(curves))
    for axes, network in zip(every, networks, strict=True):
        middle = means(rows, network)
        for label, colour, marker, x, y in curves:
            for row in rows:
                if row.network == network:
                    at = (100 * getattr(row, x), 100 * getattr(row, y))
                    axes.plot(*at, marker, color=colour, alpha=0.25, markersize=3, markeredgewidth=0)
            line = [100 * one[x] for _, one in middle], [100 * one[y] for _, one in middle]
            axes.plot(*line, marker=marker, color=colour, label=label)
        axes.set_title(model_name(network))
        axes.set_xlabel("pruned filters, or parameters gone (%)")
        axes.set_xlim(-3, 103)
    every[0].set_ylabel("accuracy (%)")
    made.legend(handles=every[0].get_legend_handles_labels()[0], loc="outside lower center")
    return made


def page(rows: Sequence[Row]) -> str:
    """The means over seeds as Markdown, with what they say of the two questions of the figure."""
    lines = [
        "# Constants kept and constants dropped: figure 3 of the 2022 paper",
        "",
        "Made by `python benchmarks/papers/constants.py`: digits, L1 norm in each layer, normalisations left alone, "
        f"{FROM_SCRATCH.epochs} epochs of training and {FINE_TUNE.epochs} of fine-tuning with the masks held; accuracy "
        "of the test images, means over seeds. Parameters: those that are left, of the dense network's. Difference: of "
        "the outputs where constants were dropped, by the largest output. Were the normalisations masked with the "
        "filters, as `edgeprune.prune` does unless told otherwise, no constant would be left to drop.",
        "",
        "![Accuracy against pruned filters and against parameters gone](constants.png)",
    ]
    for network in dict.fromkeys(row.network for row in rows):
        seeds = {row.seed for row in rows if row.network == network}
        middle = means(rows, network)
        lines += [
            "",
            f"## {model_name(network)}, {len(seeds)} seed{'s' * (len(seeds) > 1)}",
            "",
            sentences(rows, network),
            "",
            "| pruned filters | accuracy: masked | exact | dropped | parameters left: exact | dropped | difference |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_line(one) for _, one in middle),
        ]
    return "\n".join(lines) + "\n"


def _line(one: dict[str, float]) -> str:
    reached = [one[f"{name}_accuracy"] for name in ("masked", "exact", "drop")]
    left = [1 - one["exact_params_gone"], 1 - one["drop_params_gone"]]
    shares = " | ".join(f"{100 * share:.1f} %" for share in (one["pruned_filters"], *reached, *left))
    return f"| {shares} | {one['drop_difference']:.2g} |"


def sentences(rows: Sequence[Row], network: str) -> str:
    """What the rows of a network say: filters against parameters, and what dropping and keeping constants cost."""
    ratios, pruned = zip(*((ratio, one) for ratio, one in means(rows, network) if ratio), strict=True)
    half = min(pruned, key=lambda one: abs(one["pruned_filters"] - 0.5))
    loss = [100 * (one["masked_accuracy"] - one["drop_accuracy"]) for one in pruned]
    moved = max(100 * abs(one["masked_accuracy"] - one["exact_accuracy"]) for one in pruned)
    extra = [100 * (one["drop_params_gone"] - one["exact_params_gone"]) for one in pruned]
    worst = loss.index(max(loss))
    seeds = [100 * row.drop_accuracy for row in rows if (row.network, row.ratio) == (network, ratios[worst])]
    return (
        f"The part of filters is not the part of the network: {100 * half['pruned_filters']:.0f} % of the filters are "
        f"{100 * half['exact_params_gone']:.0f} % of the parameters, so at the same accuracy the curves by parameters "
        f"lie further right. Dropping constants costs {loss[0]:.1f} points of accuracy at "
        f"{100 * pruned[0]['pruned_filters']:.0f} % of the filters, {loss[pruned.index(half)]:.1f} at "
        f"{100 * half['pruned_filters']:.0f} % and at most {loss[worst]:.1f}, at "
        f"{100 * pruned[worst]['pruned_filters']:.0f} %, where {min(seeds):.0f} to {max(seeds):.0f} % of the "
        f"answers are right by seed. Keeping them costs at most {moved:.1f} points, and "
        f"{min(extra):.1f} to {max(extra):.1f} % of the dense network's parameters more than dropping them."
    )


def main() -> int:
    """Measure the seeds that an earlier run did not, and write rows, table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=ep.models.names(), default=["resnet20"])
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("results/published"), help="folder of constants.*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = read(options.out / "constants.csv")
    for network in options.networks:
        data = ep.datasets.load("digits", ep.models.entry(network).input_shape)
        for seed in options.seeds:
            wanted = {0.0, *options.ratios}
            if wanted <= {row.ratio for row in rows if (row.network, row.seed) == (network, seed)}:
                continue
            rows = [row for row in rows if (row.network, row.seed) != (network, seed)]
            for row in measure(network, seed, data, options.ratios):
                rows.append(row)
                write(rows, options.out / "constants.csv")
                print(row, flush=True)
    with styled():
        (options.out / "constants.png").write_bytes(encode(figure(rows), "png"))
    (options.out / "constants.md").write_text(page(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
