"""Who is asked, whether all answer alike, and the rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.generator import Load, closed_loop
from benchmarks.load import Case
from benchmarks.report import middle

TOLERANCE = 1e-5

_WARM_S = 1.0  # BentoML learns from its first batches when to wait
_AT_ONCE = 32


class Unlike(RuntimeError):
    """Two servers answer the same question otherwise: there is nothing to compare."""


class Question(NamedTuple):
    """A question about to be asked of a user whose history is stored."""

    user_id: str
    question_id: str


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A running server, and how it is asked."""

    name: str
    url: str
    body: Callable[[str, str], dict[str, Any]]  # of a user and a question
    p_correct: Callable[[Any], float]  # in an answer
    awake: Callable[[], AbstractContextManager[None]] = nullcontext  # for as long as it is asked


class Timed(NamedTuple):
    """A case, and who answers it."""

    contender: Contender | None  # None: the empty route
    case: Case


def compare(contenders: Sequence[Contender], questions: Sequence[Question]) -> dict[str, float]:
    """Return how far each is at most from the first one's answers, 32 questions asked at a time.

    Raises `Unlike` where that is more than `TOLERANCE`.
    """
    reference, *others = contenders
    expected = _answers(reference, questions)
    furthest = {}
    for other in others:
        apart = np.abs(_answers(other, questions) - expected)
        worst = int(apart.argmax())
        if not apart[worst] <= TOLERANCE:
            raise Unlike(
                f"{other.name} is {apart[worst]:.2g} from {reference.name} on {questions[worst]}: "
                "they do not serve the same model and histories; nothing is measured"
            )
        furthest[other.name] = float(apart[worst])
    return furthest


def measure(
    timed: Sequence[Timed], rounds: int, seconds: float, callers: int, console: Console
) -> dict[str, list[Load]]:
    """Return the load of each round by the case's name, all of them in turns."""
    loads: dict[str, list[Load]] = {t.case.name: [] for t in timed}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("rounds", total=(rounds + 1) * len(timed))
        for round_ in range(rounds + 1):
            for contender, case in timed:
                with contender.awake() if contender else nullcontext():
                    # The first round warms up.
                    lasting = seconds if round_ else min(seconds, _WARM_S)
                    load = closed_loop(case.url, case.requests, callers, lasting)
                if round_:
                    loads[case.name].append(load)
                progress.advance(task)
    return loads


def over(above: Sequence[Load], below: Sequence[Load]) -> list[float]:
    """Return `middle` of the ratios of rates, each within its round."""
    return middle([a.per_second / b.per_second for a, b in zip(above, below, strict=True)])


def _answers(contender: Contender, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
    async def ask() -> list[float]:
        limit = asyncio.Semaphore(_AT_ONCE)
        async with httpx.AsyncClient(base_url=contender.url, timeout=60) as client:

            async def one(question: Question) -> float:
                async with limit:
                    answer = await client.post("/predict", json=contender.body(*question))
                if answer.status_code != 200:
                    raise Unlike(f"{contender.name} answered {answer.status_code}: {answer.text}")
                return contender.p_correct(answer.json())

            return await asyncio.gather(*map(one, questions))

    with contender.awake():
        return np.array(asyncio.run(ask()))
