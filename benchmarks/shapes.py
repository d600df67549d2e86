"""Requests of every shape that callers may think of, at random: for `benchmarks.footprint`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.generator import post, request

USERS = 20  # few, so that their histories are as long in the first minute as in the last
LONGEST = 2000
MOST_ITEMS = 100


def random_shapes(
    url: str, models: Sequence[str], questions: Sequence[str], seed: int
) -> Iterator[bytes]:
    """Yield requests without end.

    Every model, histories stored and inline, of none to `LONGEST` answers, with and without the
    vector, one by one and in batches; knowledge states; answers recorded; users forgotten.
    """
    rng = np.random.default_rng(seed)

    def user() -> str:
        return f"shapes-{rng.integers(USERS)}"

    def question() -> str:
        return questions[rng.integers(len(questions))]

    def answers(most: int) -> list[dict[str, Any]]:
        n = int(np.exp(rng.uniform(0, np.log(most + 1))))  # as many short ones as long ones
        return [{"question_id": question(), "correct": bool(rng.random() < 0.6)} for _ in range(n)]

    def ask(longest: int) -> dict[str, Any]:
        stands_on = {"user_id": user()} if rng.random() < 0.5 else {"history": answers(longest)}
        return {
            **stands_on,
            "question_id": question(),
            "model": models[rng.integers(len(models))],
            "knowledge_state": bool(rng.random() < 0.5),
        }

    while True:
        what = rng.random()
        if what < 0.6:
            yield post(url, "/predict", ask(LONGEST))
        elif what < 0.7:
            items = [ask(LONGEST // 20) for _ in range(1 + rng.integers(MOST_ITEMS))]
            yield post(url, "/predict/batch", {"items": items})
        elif what < 0.8:
            yield request(url, "GET", f"/users/{user()}/knowledge-state")
        elif what < 0.99:
            yield post(url, f"/users/{user()}/interactions", {"interactions": answers(500)})
        else:
            yield request(url, "DELETE", f"/users/{user()}")
