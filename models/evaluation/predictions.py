"""A network or an artifact -> the probability of every answer of every user.

Each is the number that a server would have given just before the answer: the same windows, cut by
the same rule. A causal network answers a whole block of rows in one pass; that is only faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract.artifact import WindowRule
from models.contract.window import INPUTS, Window, collate
from models.datasets.encoded import EncodedUser

BATCH_PLACES = 8192  # what a pass makes of them still fits a processor's cache
Item = TypeVar("Item")
Row = tuple[int, int]  # user number, row
Progress = Callable[[int], None]  # called with the number of rows done


def predict(
    network: Any,
    users: Sequence[EncodedUser],
    rule: WindowRule,
    *,
    rows: Iterable[Row] | None = None,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """Return for each user p of every row; NaN where `rows` is given and does not name it."""
    found = [np.full(len(u), np.nan) for u in users]
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            singles = list(rows) if rows is not None else None
            if singles is None and network.is_causal:
                singles = _predict_blocks(network, users, rule, found, progress)
            elif singles is None:
                singles = [(u, r) for u, user in enumerate(users) for r in range(len(user))]
            score = lambda batch: torch.sigmoid(network(*tensors(batch))).numpy()  # noqa: E731
            predict_rows(score, users, rule, singles, found, progress)
    finally:
        network.train(was_training)
    return found


def predict_rows(
    score: Callable[[dict[str, NDArray[Any]]], NDArray[np.floating[Any]]],
    users: Sequence[EncodedUser],
    rule: WindowRule,
    rows: Sequence[Row],
    found: list[NDArray[np.float64]],
    progress: Progress | None = None,
) -> None:
    """Fill `found` at `rows`, one window a row; `score` takes a collated batch."""
    by_length = sorted(rows, key=lambda row: int(users[row[0]].visible[row[1]]))
    for group in groups(by_length, lambda row: _length(users[row[0]], row[1], rule)):
        p = score(collate([users[u].window(r, rule) for u, r in group], rule.side))  # type: ignore[arg-type]
        for (u, r), value in zip(group, p, strict=True):
            found[u][r] = value
        if progress:
            progress(len(group))


def tensors(batch: dict[str, NDArray[Any]]) -> list[torch.Tensor]:
    """Return a collated batch as tensors, in the order that networks take them."""
    return [torch.from_numpy(batch[name]) for name in INPUTS]


def _predict_blocks(
    network: Any,
    users: Sequence[EncodedUser],
    rule: WindowRule,
    found: list[NDArray[np.float64]],
    progress: Progress | None,
) -> list[Row]:
    """Fill every row that a pass over a block answers; return those that it may not."""
    blocks = [(u, *b) for u, user in enumerate(users) for b in user.blocks(rule)]
    blocks.sort(key=lambda b: b[3] - b[1])
    left = []
    for group in groups(blocks, lambda b: b[3] - b[1]):
        windows: list[Window] = [users[u].stretch(start, end) for u, start, _, end in group]
        logit = network.every_place(*tensors(collate(windows))).logit  # right-padded
        p = torch.sigmoid(logit).numpy()
        done = 0
        for (u, start, first, end), values in zip(group, p, strict=True):
            seen = users[u].scored(first, end)
            found[u][first:end] = np.where(seen, values[first - start : end - start], np.nan)
            left += [(u, first + int(r)) for r in np.flatnonzero(~seen)]
            done += int(seen.sum())
        if progress:
            progress(done)
    return left


def _length(user: EncodedUser, row: int, rule: WindowRule) -> int:
    return min(int(user.visible[row]) + 1, rule.length)


def groups(
    items: Sequence[Item], length: Callable[[Item], int], places: int = BATCH_PLACES
) -> Iterator[list[Item]]:
    """Cut items, sorted by length, into batches of at most `places` padded places."""
    group: list[Item] = []
    for item in items:
        if group and length(item) * (len(group) + 1) > places:
            yield group
            group = []
        group.append(item)
    if group:
        yield group
