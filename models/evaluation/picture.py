"""Draw how good models are by how much they have seen of a user.

    python -m models.evaluation.picture docs/auc-by-history.png artifacts/*/1

Reads what each artifact's manifest says of its test split; bars are the 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from models.commands import picture_to_write
from models.contract.artifact import Manifest, ManifestError

PANELS = (("auc", "AUC (higher is better)"), ("ece", "calibration error (lower is better)"))


def main(arguments: list[str] | None = None) -> int:
    """Draw; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluation.picture", description=__doc__
    )
    parser.add_argument("out", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("artifacts", type=Path, nargs="+", help="artifact folders")
    given = parser.parse_args(arguments)
    try:
        manifests = [Manifest.load(folder) for folder in given.artifacts]
    except ManifestError as exc:
        print(f"picture: {exc}", file=sys.stderr)
        return 1
    picture({m.name: m.metrics for m in manifests}).savefig(given.out, dpi=110)
    print(f"drawn in {given.out}")
    return 0


def picture(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return the figure: one panel a metric, one line a model, one point a length of history."""
    mpl.rcParams["svg.hashsalt"] = "ktserve"
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for shift, (model, found) in enumerate(metrics.items()):
            buckets = {k: v[name] for k, v in found["by_history_length"].items() if v.get(name)}
            places = [i + 0.12 * (shift - (len(metrics) - 1) / 2) for i in range(len(buckets))]
            values = [b["value"] for b in buckets.values()]
            below = [max(0.0, b["value"] - b["low"]) for b in buckets.values()]
            above = [max(0.0, b["high"] - b["value"]) for b in buckets.values()]
            axes.errorbar(places, values, [below, above], marker="o", capsize=3, label=model)
            axes.set_xticks(range(len(buckets)), list(buckets))
        axes.set_title(title)
        axes.set_xlabel("answers before the one asked")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
