"""Learners with a known truth, for tests and demonstrations.

    python -m models.datasets.simulator learners.csv --users 200 --answers 60

Each user has an ability, and a level in every skill that grows by answers and fades in pauses.
A question asks for one to three skills and has a difficulty; its answer is right with the chance
guess + (1 - guess - slip) * sigmoid(mean level of its skills - difficulty).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.commands import at_least, file_to_write
from models.contract.logit import p_of
from models.datasets.dataset import Dataset
from models.datasets.table import SKILLS_APART, dataset_of

GUESS, SLIP = 0.15, 0.05
DAY_S = 86_400.0


class Simulation(NamedTuple):
    """What was simulated, and the chance that each answer in it had of being right."""

    frame: pl.DataFrame  # in the form of anybody's table
    p_true: NDArray[np.float64]  # (N,) by row

    @property
    def dataset(self) -> Dataset:
        """The answers as the trainer reads them."""
        return dataset_of(self.frame.cast(pl.String), Path("simulated"), {})


def simulate(
    *, users: int, answers: int, questions: int = 60, skills: int = 8, seed: int = 0
) -> Simulation:
    """Return `users` histories of `answers` answers each; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    wanted = _skills_of_questions(rng, questions, skills)  # (questions, skills) shares
    difficulty = rng.normal(0, 1.0, questions)
    ability = rng.normal(0, 0.8, users)
    level = ability[:, None] + rng.normal(-0.5, 0.8, (users, skills))
    base, pace = level.copy(), rng.gamma(2.0, 0.06, (users, 1))
    asked_s = rng.uniform(0, DAY_S, users)
    columns: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("question", "correct", "asked", "elapsed", "p")
    }
    for _ in range(answers):
        # Mostly a short pause, now and then one of days: levels fade towards where they began.
        lag = np.where(
            rng.random(users) < 0.05,
            rng.exponential(3 * DAY_S, users),
            rng.lognormal(3.0, 0.8, users),
        )
        asked_s = asked_s + lag
        level = base + (level - base) * np.exp(-lag / (20 * DAY_S))[:, None]
        question = rng.integers(0, questions, users)
        need = wanted[question]
        logit = (need * level).sum(axis=1) - difficulty[question]
        p = GUESS + (1 - GUESS - SLIP) * p_of(logit)
        correct = rng.random(users) < p
        level = level + pace * (need > 0) * np.where(correct, 1.0, 0.6)[:, None]
        columns["question"].append(question)
        columns["correct"].append(correct)
        columns["asked"].append(asked_s)
        columns["elapsed"].append(rng.lognormal(2.5 - 0.2 * ability, 0.5))
        columns["p"].append(p)
    by_user = {name: np.stack(values, axis=1).ravel() for name, values in columns.items()}
    cells = [SKILLS_APART.join(f"s{j}" for j in np.flatnonzero(row)) for row in wanted]
    asked = by_user["question"].astype(int)
    frame = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{n}" for n in range(users)], answers),
            "question_id": [f"q{q}" for q in asked],
            "skill_id": [cells[q] for q in asked],
            "correct": by_user["correct"].astype(int),
            "timestamp_ms": (by_user["asked"] * 1000).astype(np.int64),
            "elapsed_ms": (by_user["elapsed"] * 1000).astype(np.int64),
            "order": np.tile(np.arange(answers), users),
        }
    )
    return Simulation(frame, by_user["p"])


def _skills_of_questions(
    rng: np.random.Generator, questions: int, skills: int
) -> NDArray[np.float64]:
    """Return each question's share in each skill: mostly one skill, sometimes two or three."""
    wanted = np.zeros((questions, skills))
    for row in wanted:
        count = min(skills, int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])))
        row[rng.choice(skills, count, replace=False)] = 1 / count
    return wanted


def main(arguments: list[str] | None = None) -> int:
    """Write a CSV by the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.datasets.simulator", description="Write simulated learners as CSV."
    )
    parser.add_argument("out", type=file_to_write)
    for name, least, default in (
        ("users", 1, 200),
        ("answers", 1, 60),
        ("questions", 1, 60),
        ("skills", 1, 8),
        ("seed", 0, 0),
    ):
        parser.add_argument(f"--{name}", type=at_least(least), default=default)
    given = parser.parse_args(arguments)
    simulation = simulate(
        users=given.users,
        answers=given.answers,
        questions=given.questions,
        skills=given.skills,
        seed=given.seed,
    )
    simulation.frame.write_csv(given.out)
    print(  # noqa: T201 - a command
        f"{len(simulation.p_true):,} answers of {given.users:,} users are in {given.out}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
