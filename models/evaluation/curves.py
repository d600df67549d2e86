"""Draw how trainings went: training loss and validation AUC, epoch by epoch.

    python -m models.evaluation.curves docs/curves.png runs/protocol/assist2017/*/fold-?

Reads the `log.jsonl` of run folders, of trainings that still run too. The best epoch, whose weights
are kept, is a full point. Runs of one folder, as the folds of a cell, have one colour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.commands import picture_to_write
from models.evaluation.run import LOG

Epochs = Sequence[Mapping[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Draw; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluation.curves", description=__doc__)
    parser.add_argument("out", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("folders", type=Path, nargs="+", help="run folders")
    given = parser.parse_args(arguments)
    try:
        found = {folder: epochs_of(folder) for folder in given.folders}
    except (ValueError, OSError) as exc:
        print(f"curves: {exc}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    curves_picture(found).savefig(given.out, dpi=110)
    print(f"drawn in {given.out}")  # noqa: T201 - a command
    return 0


def epochs_of(folder: Path) -> Epochs:
    """Return what the epochs of a run brought.

    Raises `ValueError` where its log holds none, and `OSError` where there is no log.
    """
    path = folder / LOG
    try:
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as exc:
        raise ValueError(f"{path} is not a log of epochs: {exc}") from exc
    if not epochs:
        raise ValueError(f"{path} holds no epoch yet")
    return epochs


def curves_picture(found: Mapping[Path, Epochs]) -> Figure:
    """Return the figure: loss on the left, validation AUC on the right; a line a run."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    groups = list(dict.fromkeys(folder.resolve().parent for folder in found))
    several = len(groups) > 1
    for place, (folder, epochs) in enumerate(found.items()):
        parent = folder.resolve().parent
        color = f"C{(groups.index(parent) if several else place) % 10}"
        is_first = folder == next(f for f in found if f.resolve().parent == parent)
        label = (parent.name if is_first else None) if several else folder.name
        number = [epoch["epoch"] for epoch in epochs]
        for ax, field in zip(axes, ("loss", "validation_auc"), strict=True):
            values = [epoch[field] for epoch in epochs]
            ax.plot(number, values, color=color, alpha=0.8, linewidth=1.2, label=label)
        best = max((e for e in epochs if e["best"]), key=lambda e: e["epoch"], default=epochs[-1])
        axes[1].plot(best["epoch"], best["validation_auc"], "o", color=color, markersize=5)
    for ax, title in zip(axes, ("training loss", "validation AUC"), strict=True):
        ax.set_title(title)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes[1].legend()
    return figure


if __name__ == "__main__":
    sys.exit(main())
