"""Draw how often answers of a given probability were right, before and after calibration.

    python -m models.evaluation.reliability_picture docs/reliability.png runs/dkt artifacts/*/1

A row a run or artifact, a column a history length; bins of fewer than ten answers are not drawn,
since their share is mostly chance. Reads what an evaluation left: `metrics.json`
of a run, the manifest of an artifact.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.commands import picture_to_write
from models.contract.artifact import MANIFEST, Manifest
from models.contract.calibration import Calibration
from models.evaluation.run import METRICS, read_json

STYLES = (("before", "0.6", "s"), ("after", "C0", "o"))
LEAST_ANSWERS = 10
LARGEST_POINT = 120.0  # square points; of a bin that has all the answers


def main(arguments: list[str] | None = None) -> int:
    """Draw; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluation.reliability_picture", description=__doc__
    )
    parser.add_argument("out", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("folders", type=Path, nargs="+", help="run or artifact folders")
    given = parser.parse_args(arguments)
    try:
        found = {name_of(folder): calibration_of(folder) for folder in given.folders}
    except (ValueError, OSError) as exc:
        print(f"reliability_picture: {exc}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    reliability_picture(found).savefig(given.out, dpi=110)
    print(f"drawn in {given.out}")  # noqa: T201 - a command
    return 0


def name_of(folder: Path) -> str:
    """Return a run's name, or an artifact's name and version."""
    parts = folder.resolve().parts
    return "/".join(parts[-2:]) if (folder / MANIFEST).is_file() else parts[-1]


def calibration_of(folder: Path) -> Calibration:
    """Return the calibration of a run or an artifact, with what it changed.

    Raises `ValueError` where there is none, and `OSError` where nothing can be read.
    """
    if (folder / MANIFEST).is_file():
        calibration = Manifest.load(folder).calibration
    else:
        content = read_json(folder / METRICS)
        calibration = Calibration.of(content.get("calibration", {}))
    if not calibration.reliability:
        raise ValueError(
            f"{folder} was not calibrated; measure it by `python -m models.evaluation`"
        )
    return calibration


def reliability_picture(calibrations: Mapping[str, Calibration]) -> Figure:
    """Return the figure: on the diagonal, p of all answers given p were right."""
    mpl.rcParams["svg.hashsalt"] = "ktserve"
    columns = list(next(iter(calibrations.values())).reliability["after"])
    figure = Figure(
        figsize=(2.6 * len(columns), 2.7 * len(calibrations) + 0.4), layout="constrained"
    )
    grid = figure.subplots(len(calibrations), len(columns), squeeze=False, sharex=True, sharey=True)
    for row, (name, calibration) in zip(grid, calibrations.items(), strict=True):
        for axes, bucket in zip(row, columns, strict=True):
            _panel(axes, calibration, bucket)
        row[0].set_ylabel(f"{name}\nshare answered right")
    for axes, bucket in zip(grid[0], columns, strict=True):
        axes.set_title("all answers" if bucket == "all" else f"{bucket} answers before")
    grid[-1][len(columns) // 2].set_xlabel("predicted chance")
    grid[0][0].legend(loc="lower right", fontsize="small")
    return figure


def _panel(axes: Axes, calibration: Calibration, bucket: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    for when, colour, marker in STYLES:
        found: Sequence[Sequence[float]] = calibration.reliability[when].get(bucket, [])
        bins = [one for one in found if one[2] >= LEAST_ANSWERS]
        if not bins:
            continue
        p, right, answers = zip(*bins, strict=True)
        area = [max(4.0, LARGEST_POINT * math.sqrt(n / sum(answers))) for n in answers]
        axes.plot(p, right, color=colour, linewidth=1)
        axes.scatter(p, right, s=area, color=colour, marker=marker, alpha=0.7, label=when)
    ece = [calibration.ece[when].get(bucket) for when, _, _ in STYLES]
    if None not in ece:
        axes.text(0.04, 0.9, f"ECE {ece[0]:.3f} → {ece[1]:.3f}", fontsize="small")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
