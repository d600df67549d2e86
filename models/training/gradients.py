"""Draw what LayerNorm, T-Fixup, or neither does to a deep SAINT+ in its first steps.

    python -m models.training.gradients docs/gradients.png [--set assist2017] [--layers 6]

Three networks of the same seed see the same batches, without warm-up and without clipping: the
scale of every layer's output and the norm of its gradient, step by step, and the loss. A network
whose loss is no longer a number stops there. Learners are simulated unless a set is named.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, get_args

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models.commands import above_zero, at_least, picture_to_write
from models.datasets.dataset import Dataset
from models.datasets.encoded import EncodedUser, encode
from models.datasets.known import open_dataset
from models.datasets.simulator import simulate
from models.datasets.split import SplitConfig
from models.nets import build
from models.nets.layers.norm import Norm
from models.nets.layers.places import Inputs
from models.training.batches import Batch, stretches
from models.training.config import FitConfig
from models.training.losses import answer_loss

TITLES = {"layer": "LayerNorm", "t_fixup": "T-Fixup, no LayerNorm", "none": "neither"}
LONGEST = 200  # places of a stretch


class Trace(NamedTuple):
    """What was seen of one network, step by step; layers from the encoder's first on."""

    layers: tuple[str, ...]
    loss: list[float]
    activation: list[list[float]]  # (steps, layers): root mean square of the layer's output
    gradient: list[list[float]]  # (steps, layers): norm over all weights of the layer


def main(arguments: list[str] | None = None) -> int:
    """Train the three by the command line, draw them, print their losses; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.gradients", description=__doc__.splitlines()[0]
    )
    parser.add_argument("out", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--set", help="a known set, or a CSV or Parquet file; default: simulated")
    parser.add_argument("--folder", type=Path, default=Path(SplitConfig.folder))
    parser.add_argument(
        "--layers", type=at_least(1), default=6, help="of the encoder, and of the decoder"
    )
    parser.add_argument("--width", type=at_least(1), default=64)
    parser.add_argument("--steps", type=at_least(1), default=100)
    parser.add_argument("--lr", type=above_zero, default=2e-3, help="from the first step on")
    parser.add_argument("--seed", type=at_least(0), default=0)
    given = parser.parse_args(arguments)
    try:
        data = (
            open_dataset(given.set, given.folder)
            if given.set
            else simulate(users=300, answers=50, seed=given.seed).dataset
        )
        networks = {
            norm: network_for(data, norm, layers=given.layers, width=given.width, seed=given.seed)
            for norm in get_args(Norm)
        }
    except ValueError as exc:
        print(f"gradients: {exc}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    traces = {
        norm: trace(network, batches_of(data, seed=given.seed), lr=given.lr, steps=given.steps)
        for norm, network in networks.items()
    }
    picture(traces).savefig(given.out, dpi=110)
    console = Console()
    console.print(table(traces))
    console.print(f"drawn in {given.out}")
    return 0


def network_for(data: Dataset, norm: Norm, *, layers: int, width: int, seed: int) -> Any:
    """Return a SAINT+ of so many layers a side; `recency` is off, as published."""
    vocabulary = data.vocabulary()
    options = {
        "n_questions": vocabulary.n_questions,
        "n_skills": vocabulary.n_skills,
        "length": LONGEST,
        "layers": layers,
        "width": width,
        "hidden": 2 * width,
        "dropout": 0.0,
        "recency": False,
        "norm": norm,
    }
    torch.manual_seed(seed)
    return build("saint_plus", options)


def batches_of(data: Dataset, *, seed: int) -> Iterator[Batch]:
    """Yield batches without end, epoch after epoch, the same for the same seed."""
    users: Sequence[EncodedUser] = encode(data, data.vocabulary())
    fit = FitConfig(batch_places=1600, stretch=LONGEST, unseen=0.0, untimed=0.0)
    for epoch in count():
        yield from stretches(users, fit, np.random.default_rng([seed, epoch]))


def trace(network: Any, batches: Iterator[Batch], *, lr: float, steps: int) -> Trace:
    """Train by Adam at one learning rate, and keep what each layer did in each step.

    Ends before `steps` when the loss is no longer finite; that loss is the last one kept.
    """
    layers = {
        f"{side} {n}": layer
        for side in ("encoder", "decoder")
        for n, layer in enumerate(getattr(network, side), start=1)
    }
    out: dict[str, Tensor] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _module, _inputs, y, name=name: out.update({name: y}))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    found = Trace(tuple(layers), [], [], [])
    for _, batch in zip(range(steps), batches, strict=False):
        loss = answer_loss(network.every_place(*batch.inputs).logit, batch.right, batch.scored)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        mask = Inputs(*batch.inputs).mask
        found.loss.append(loss.item())
        found.activation.append(
            [out[name].detach()[mask].square().mean().sqrt().item() for name in layers]
        )
        found.gradient.append([_gradient_norm(layer) for layer in layers.values()])
        if not math.isfinite(loss.item()):
            break
        optimizer.step()
    return found


def _gradient_norm(layer: nn.Module) -> float:
    gradients = [w.grad for w in layer.parameters() if w.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()


def table(traces: Mapping[str, Trace]) -> Table:
    """Return the mean loss over each tenth of the steps, a column a network."""
    steps = max(len(t.loss) for t in traces.values())
    tenth = max(1, steps // 10)
    shown = Table("steps", *(f"loss, {TITLES[name]}" for name in traces))
    for first in range(0, steps, tenth):
        end = min(first + tenth, steps)
        parts = [found.loss[first:end] for found in traces.values()]
        shown.add_row(
            f"{first + 1} to {end}", *(f"{np.mean(p):.3f}" if p else "ended" for p in parts)
        )
    return shown


def picture(traces: Mapping[str, Trace]) -> Figure:
    """Return the figure: a column a network; its layers' outputs, their gradients, the loss."""
    mpl.rcParams["svg.hashsalt"] = "ktserve"
    figure = Figure(figsize=(4 * len(traces), 9), layout="constrained")
    grid = figure.subplots(3, len(traces), sharex=True, sharey="row", squeeze=False)
    for column, (name, found) in zip(grid.T, traces.items(), strict=True):
        step = np.arange(1, len(found.loss) + 1)
        for axes, values in zip(column, (found.activation, found.gradient), strict=False):
            for layer, line in zip(found.layers, np.array(values).T, strict=True):
                axes.plot(step, _finite(line), color=_colour(layer, found.layers), label=layer)
        column[2].plot(step, _finite(np.array(found.loss)), color="black")
        if not math.isfinite(found.loss[-1]):
            for axes in column:
                axes.axvline(step[-1], color="red", linestyle=":")
        column[0].set_title(TITLES[name])
        column[2].set_xlabel("step")
    for axes, title in zip(
        grid[:, 0], ("scale of a layer's output", "norm of its gradient", "loss"), strict=True
    ):
        axes.set_ylabel(title)
        axes.set_yscale("log")
    for axes in grid.flat:
        axes.grid(alpha=0.3)
    grid[0, 0].legend(fontsize="x-small", ncols=2)
    return figure


def _finite(values: Any) -> Any:
    return np.where(np.isfinite(values), values, np.nan)


def _colour(layer: str, layers: Sequence[str]) -> Any:
    """Encoder layers in blues, decoder layers in oranges, deep ones dark."""
    side, number = layer.split()
    deepest = len(layers) // 2
    return mpl.colormaps["Blues" if side == "encoder" else "Oranges"](
        0.35 + 0.6 * int(number) / deepest
    )


if __name__ == "__main__":
    sys.exit(main())
