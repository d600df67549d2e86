"""The benchmark's table, written between two marks of a page from the kept figures of all folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.contract.artifact import WindowRule
from models.evaluation.protocol import PROTOCOLS, Protocol
from models.evaluation.published import BEST, Published, best_for, published

BEGIN, END = "<!-- protocols:begin -->", "<!-- protocols:end -->"

LINE = (
    "global_mean",
    "question_mean",
    "question_user_mean",
    "logistic_counts",
    "bkt",
    "dkt",
    "dkt_plus",
    "sakt",
    "saint",
    "saint_plus",
    "last_query",
    "dkt_asked",
    "ensemble",
)
"""The rows of each protocol, run or not; models beside these follow where they were run."""

HEAD = (
    "model",
    "folds",
    "AUC",
    "deviation",
    "published",
    "difference",
    "ECE",
    "window",
    "command: `python -m models.evaluation` ...",
)

NOTES = "\n".join(
    (
        "Every figure is of test users that neither trained nor chose anything; the epoch is "
        "chosen by validation AUC.",
        "AUC pools the answers of all test users, from each user's second answer on, as pyKT "
        "scores; the files in `docs/results/` have it over every answer beside it.",
        "AUC and ECE are means over the folds run, the deviation is that of a sample; the "
        "difference is our mean less the published one.",
        "A published figure in brackets is not of the same model, but the best of any; a "
        "second-hand one was read where it is quoted, not in the paper itself.",
        "The window is how many places, the asked one counted, a prediction sees; behind a stroke, "
        "by how many it is cut when it is full.",
        "`question_user_mean` is the floor of the README beside the data, learned from the "
        "training folds alone. That README's own figures (assist2017, fold 1: 0.7045; statics2011, "
        "fold 1: 0.8109) learned from the validation fold too; so taught, ours has 0.7047 and "
        "0.8110.",
    )
)


class PageInvalid(ValueError):
    """The page has not the two marks between which the table stands, one after the other."""


def write_table(page: Path, results: Path) -> None:
    """Write the table anew; a page without marks gets them at its end."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if BEGIN not in text and END not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n".lstrip()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise PageInvalid(f"{page} needs {BEGIN} and, behind it, {END}")
    new = f"{before}{BEGIN}\n{section(results)}\n{END}{after}"
    if not page.is_file() or new != page.read_text(encoding="utf-8"):
        page.write_text(new, encoding="utf-8")


def section(results: Path) -> str:
    """Return the Markdown of all protocols."""
    parts = [NOTES]
    for protocol in PROTOCOLS.values():
        rows = [_row(protocol, model, results) for model in _models(protocol, results)]
        lines = [HEAD, ["---"] * len(HEAD), *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"### {protocol.name}\n\n{protocol.rule}{_best(protocol)}\n\n{table}")
    return "\n\n".join(parts)


def _models(protocol: Protocol, results: Path) -> list[str]:
    folder = results / protocol.name
    others = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return [*LINE[:-1], *(m for m in others if m not in LINE), LINE[-1]]


def _row(protocol: Protocol, model: str, results: Path) -> Sequence[str]:
    folds = read_folds(protocol, model, results)
    own, best = published(protocol.name, model), best_for(protocol.name, model)
    theirs = _cited(own) if own else f"({_cited(best)})" if best else ""
    if not folds:
        return (f"`{model}`", "not run", "", "", theirs, "", "", "", "")
    auc = np.array([f["auc"] for f in folds])
    held_against = own or best
    return (
        f"`{model}`",
        f"{len(folds)} of {len(protocol.folds)}",
        f"{auc.mean():.4f}",
        f"{auc.std(ddof=1):.4f}" if len(folds) > 1 else "",
        theirs,
        f"{auc.mean() - held_against.auc:+.4f}" if held_against else "",
        _ece(folds),
        " or ".join(sorted({_window(f["window"], protocol.window) for f in folds})),
        _command(protocol, model, folds),
    )


def _command(protocol: Protocol, model: str, folds: Sequence[Mapping[str, Any]]) -> str:
    """Return what runs these folds again: all in one, or each measured subject for itself."""
    numbers = " ".join(str(f["fold"]) for f in folds)
    cell = f"--protocol {protocol.name} --model {model}"
    subjects = [f"`{cell} --folds {f['fold']} --of {f['of']}`" for f in folds if "of" in f]
    if subjects:
        return ", ".join(subjects)
    return f"`{cell}`" if len(folds) == len(protocol.folds) else f"`{cell} --folds {numbers}`"


def read_folds(protocol: Protocol, model: str, results: Path) -> list[dict[str, Any]]:
    """Return the kept figures of a cell, in the order of its protocol's folds."""
    paths = [results / protocol.name / model / f"{fold.number}.json" for fold in protocol.folds]
    return [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.is_file()]


def _cited(figure: Published) -> str:
    deviation = "" if figure.deviation is None else f" ± {figure.deviation:.4f}"
    return f"{figure.model} {figure.auc:.4f}{deviation} [{figure.source}]"


def _best(protocol: Protocol) -> str:
    best = BEST.get(protocol.name)
    return f"\nBest published: {_cited(best)}." if best else ""


def _ece(folds: Sequence[Mapping[str, Any]]) -> str:
    text = f"{np.mean([f['ece'] for f in folds]):.4f}"
    if all("ece_uncalibrated" in f for f in folds):
        text += f" (before calibration {np.mean([f['ece_uncalibrated'] for f in folds]):.4f})"
    return text


def _window(window: Mapping[str, Any] | None, allowed: WindowRule | None) -> str:
    """Return how much a prediction sees, and whether that is more than the protocol allows."""
    text, longer = "all", allowed is not None
    if window is not None:
        text = str(window["length"]) + (f"/{window['cut']}" if window["cut"] > 1 else "")
        longer = allowed is not None and window["length"] > allowed.length
    return f"{text}, longer than the protocol's" if longer else text
