"""Measure trained networks with windows of several lengths, on the same answers, and draw it.

    python -m models.evaluation.windows runs/dkt artifacts/last_query/1 --every 10 --out auc.png

Scored are answers with so many before them (`--history`) that the longest window is full, so that
a length says how much of an equally long past is shown. Each has a sliding window of its own;
`--every` takes one answer of so many. A network stays as it was trained, also where it never saw
windows of such a length.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from rich.console import Console

from models.commands import at_least, picture_to_write
from models.contract.artifact import WindowRule
from models.datasets.encoded import EncodedUser, encode
from models.evaluation.metrics import auc, bootstrap, drawn_again, interval
from models.evaluation.predictions import Row
from models.evaluation.subject import Subject, open_subject

LENGTHS = (50, 100, 200, 400, 800, 1728)


def main(arguments: list[str] | None = None) -> int:
    """Measure and draw; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluation.windows",
        description="Measure runs or artifacts with windows of several lengths.",
    )
    parser.add_argument("folders", type=Path, nargs="+", help="run or artifact folders")
    parser.add_argument(
        "--lengths", type=at_least(1), nargs="+", default=LENGTHS, help="places, query too"
    )
    parser.add_argument(
        "--users", type=at_least(1), help="only so many users with histories long enough"
    )
    parser.add_argument("--history", type=at_least(0), help="answers before one that is scored")
    parser.add_argument("--every", type=at_least(1), default=1, help="score one answer of so many")
    parser.add_argument("--rounds", type=at_least(1), default=200, help="bootstrap rounds")
    parser.add_argument("--data", help="folder of the known data sets, if not where it was")
    parser.add_argument("--out", type=picture_to_write, help="PNG or SVG file")
    given = parser.parse_args(arguments)
    console = Console(stderr=True)
    found = []
    try:
        for folder in given.folders:
            subject = open_subject(folder)
            encoded = encode(subject.split(given.data).test, subject.vocabulary)
            measured = by_window(
                subject,
                encoded,
                sorted(set(given.lengths)),
                history=given.history,
                users=given.users,
                every=given.every,
                rounds=given.rounds,
                console=console,
            )
            found.append(measured)
    except (ValueError, OSError) as exc:
        print(f"windows: {exc}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    if given.out is not None:
        windows_picture(found).savefig(given.out, dpi=110)
    print(as_text(found))  # noqa: T201 - a command
    print(json.dumps(found))  # noqa: T201 - a command
    return 0


def by_window(
    subject: Subject,
    encoded: Sequence[EncodedUser],
    lengths: Sequence[int],
    *,
    history: int | None = None,
    users: int | None = None,
    every: int = 1,
    rounds: int = 200,
    console: Console | None = None,
) -> dict[str, Any]:
    """Return the AUC of each window length over the same answers, with 95 % intervals over users.

    `gain` is what a length has over the shortest one; users differ far more than lengths do, so it
    is known more closely than either AUC.

    Scored are answers with `history` or more before them, by default as many as fill the longest
    window. Of a length that the network has no positions for, None. Raises `ValueError` where there
    is no such answer, or where all are right or all wrong.
    """
    history = max(lengths) - 1 if history is None else history
    rows = rows_with(history, encoded, users=users, every=every)
    if not rows:
        raise ValueError(f"{subject.name}: no test user has {history:,} answers before one")
    right = np.array([encoded[u].history.response[r] for u, r in rows])
    if right.all() or not right.any():
        raise ValueError(f"{subject.name}: its {len(rows):,} answers are all right or all wrong")
    user = np.array([u for u, _ in rows])
    by_length: dict[str, Any] = {}
    shortest: NDArray[np.float64] | None = None
    for length in lengths:
        if subject.longest is not None and length > subject.longest:
            by_length[str(length)] = None
            continue
        if console:
            console.print(f"{subject.name}: {len(rows):,} windows of {length:,} places")
        rule = WindowRule(length=length, side=subject.window.side)
        predicted = subject.predict(encoded, rule=rule, rows=rows)
        p = np.array([predicted[u][r] for u, r in rows])
        low, high = bootstrap(auc, right, p, user, rounds=rounds, seed=0)
        shortest = p if shortest is None else shortest
        by_length[str(length)] = {
            "value": auc(right, p),
            "low": low,
            "high": high,
            "gain": gain(right, p, shortest, user, rounds=rounds),
        }
    return {
        "name": subject.name,
        "data": subject.data["source"]["set"],
        "users": len(set(user.tolist())),
        "answers": len(rows),
        "every": every,
        "history": history,
        "own_window": subject.window.length,
        "auc": by_length,
    }


def rows_with(
    history: int, encoded: Sequence[EncodedUser], *, users: int | None = None, every: int = 1
) -> list[Row]:
    """Return one in `every` of a user's rows that see `history` answers or more.

    Of the first `users` users who have one.
    """
    late = [np.flatnonzero(user.visible >= history).tolist() for user in encoded]
    long_enough = [u for u, rows in enumerate(late) if rows][:users]
    return [(u, r) for u in long_enough for r in late[u][::every]]


def gain(
    right: NDArray[Any],
    p: NDArray[np.float64],
    base: NDArray[np.float64],
    user: NDArray[np.int64],
    *,
    rounds: int,
    seed: int = 0,
) -> dict[str, float]:
    """Return how much more AUC p has than `base`, both over the same drawn users each round."""
    low, high = interval(
        [
            auc(right, p, weight) - auc(right, base, weight)
            for weight in drawn_again(user, rounds=rounds, seed=seed)
        ]
    )
    return {"value": auc(right, p) - auc(right, base), "low": low, "high": high}


def as_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a table, a line for each subject and length."""
    lines = []
    for one in found:
        lines.append(
            f"{one['name']} on {one['data']}: {_scored(one)} of {one['users']:,} users; "
            f"its own windows have up to {one['own_window']:,} places"
        )
        for length, m in one["auc"].items():
            value = "no positions for so many places"
            if m is not None:
                more = m["gain"]
                value = (
                    f"{m['value']:.4f} [{m['low']:.4f}, {m['high']:.4f}]  over the shortest "
                    f"{more['value']:+.4f} [{more['low']:+.4f}, {more['high']:+.4f}]"
                )
            lines.append(f"{length:>8}  {value}")
    return "\n".join(lines)


def windows_picture(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure: a line a subject, a point a length; bars are 95 % intervals."""
    mpl.rcParams["svg.hashsalt"] = "ktserve"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    lengths = sorted({int(n) for one in found for n in one["auc"]})
    for shift, one in enumerate(found):
        measured = {int(n): m for n, m in one["auc"].items() if m is not None}
        places = [n * 1.02 ** (shift - (len(found) - 1) / 2) for n in measured]
        values = [m["value"] for m in measured.values()]
        below = [max(0.0, m["value"] - m["low"]) for m in measured.values()]
        above = [max(0.0, m["high"] - m["value"]) for m in measured.values()]
        axes.errorbar(places, values, [below, above], marker="o", capsize=3, label=one["name"])
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("places in the window, the question's counted")
    axes.set_ylabel("AUC")
    titles = dict.fromkeys(f"{one['data']}: {_scored(one)}" for one in found)
    axes.set_title("\n".join(titles), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _scored(one: Mapping[str, Any]) -> str:
    every = f" (one in {one['every']})" if one["every"] > 1 else ""
    return f"{one['answers']:,} answers{every} with {one['history']:,} or more before them"


if __name__ == "__main__":
    sys.exit(main())
