"""One cell of the benchmark: a model under a protocol, fold by fold; what is measured is kept.

docs/results/<protocol>/<model>/<fold>.json     the figures of a fold that was measured
runs/protocol/<protocol>/<model>/fold-<fold>/   the run folder of its training

Killed and started again, finished folds are kept and a training goes on from its newest epoch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from models.contract.artifact import MANIFEST
from models.datasets.encoded import encode
from models.datasets.split import open_split
from models.evaluation.baselines import BASELINES
from models.evaluation.lock import alone
from models.evaluation.protocol import Fold, Protocol
from models.evaluation.report import report
from models.evaluation.run import LOG, METRICS, RUN, write_json

RECIPES = Path(__file__).parents[1] / "training" / "configs"
RESULTS = Path("docs/results")

Figures = dict[str, Any]


class CellInvalid(ValueError):
    """The cell cannot be run as asked; the message says what would do."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a cell reads and writes."""

    results: Path = RESULTS
    runs: Path = Path("runs/protocol")
    recipes: Path = RECIPES
    data: str | None = None  # of the known sets; None: where recipes say


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model under a protocol."""

    protocol: Protocol
    model: str  # a baseline's name, or a recipe's
    folders: Folders
    console: Console
    threads: int | None = None
    rounds: int = 200  # of the bootstrap behind a fold's interval
    subject: Path | None = None  # a run or an artifact that is measured in place of a training

    def run(self, numbers: Sequence[int] | None = None, *, again: bool = False) -> list[Figures]:
        """Measure the folds of these numbers that were not yet, and return all their figures.

        Raises `CellInvalid` for a model without recipe, for a fold that was measured by another
        recipe than there is now (unless `again`), and where a training or a measuring fails.
        """
        folds = self.protocol.chosen(numbers)
        if self.subject is not None and len(folds) != 1:
            raise CellInvalid("a run or an artifact is of one fold; name it: --folds N")
        return [self._fold(fold, again) for fold in folds]

    def result(self, fold: Fold) -> Path:
        """Return the file of a fold's figures."""
        return self.folders.results / self.protocol.name / self.model / f"{fold.number}.json"

    def _fold(self, fold: Fold, again: bool) -> Figures:
        label, path = f"{self.protocol.name} / {self.model}, fold {fold.number}", self.result(fold)
        recipe = self._recipe()
        if path.is_file() and not again:
            kept: Figures = json.loads(path.read_text(encoding="utf-8"))
            if self.subject is None and kept["recipe"] != recipe:
                raise CellInvalid(f"{path} is of another recipe than there is now; add --again")
            self.console.print(f"{label}: kept, AUC {kept['auc']:.4f}")
            return kept
        self.console.print(f"{label}: starts")
        if again and recipe is not None:
            shutil.rmtree(self._run_folder(self.model, fold), ignore_errors=True)
        if self.subject is not None:
            made = {**self._measured(self.subject, fold), "of": _short(self.subject)}
        elif self.model in BASELINES:
            made = self._baseline(fold)
        else:
            made = self._trained(fold)
        figures = {
            "protocol": self.protocol.name,
            "model": self.model,
            "fold": fold.number,
            "recipe": recipe,
            **made,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, figures)
        self.console.print(f"{label}: AUC {figures['auc']:.4f}, in {path}")
        return figures

    def _recipe(self) -> str | None:
        """Return what tells one recipe from another; None where the figures need none."""
        if self.subject is not None or self.model in BASELINES:
            return None
        path = self._recipe_path(self.model)
        recipe = _read(path)
        members = [_read(path.parent / m["config"]) for m in recipe.get("members", ())]
        content = json.dumps([recipe, *members] if members else recipe, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def _recipe_path(self, model: str) -> Path:
        path = self.folders.recipes / self.protocol.name / f"{model}.toml"
        if not path.is_file():
            known = sorted(p.stem for p in path.parent.glob("*.toml"))
            raise CellInvalid(
                f"model {model!r} has no recipe {path}; with a recipe: {', '.join(known) or '-'}; "
                f"baselines: {', '.join(BASELINES)}"
            )
        return path

    def _baseline(self, fold: Fold) -> Figures:
        split = open_split(self.protocol.split(fold, self.folders.data), seed=fold.seed or 0)
        started = time.monotonic()
        vocabulary = split.train.vocabulary()
        users = [encode(part, vocabulary) for part in (split.train, split.validation, split.test)]
        found = BASELINES[self.model](*users)
        seconds = time.monotonic() - started
        content = report(users[2], found, rounds=self.rounds)
        return {**_figures(content), "window": None, "seconds": round(seconds, 1)}

    def _trained(self, fold: Fold) -> Figures:
        folder = self._train(self.model, fold)
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
        epochs = [json.loads(line) for line in lines]
        return {
            **self._measured(folder, fold),
            "epochs": len(epochs),
            "best_epoch": max((e["epoch"] for e in epochs if e["best"]), default=None),
            "validation_auc": _rounded(max(e["validation_auc"] for e in epochs)),
            "seconds": round(sum(e["seconds"] for e in epochs), 1),
            "config": _short(self._recipe_path(self.model)),
        }

    def _train(self, model: str, fold: Fold) -> Path:
        """Train by a recipe, or go on with that; a recipe that this one starts from is first."""
        path, folder = self._recipe_path(model), self._run_folder(model, fold)
        recipe = _read(path)
        if recipe.get("data", {}).get("set") != self.protocol.set:
            raise CellInvalid(f"{path}: data.set must be {self.protocol.set!r} here")
        command = ["models.training", str(path), "--runs", str(folder.parent)]
        command += ["--name", folder.name]
        for part in ("train", "validation", "test"):
            if folds := getattr(fold, part):
                command += [f"--{part}", *map(str, folds)]
        if fold.seed is not None:
            command += ["--seed", str(fold.seed)]
        if start := recipe.get("warm_start"):
            self._train(start, fold)
            command += ["--warm-start", f"../{start}/{folder.name}"]
        with alone(folder.with_suffix(".lock"), self.console) as lock:
            self._python(command, lock)
        return folder

    def _measured(self, subject: Path, fold: Fold) -> Figures:
        """Measure a run or an artifact on the fold's test users."""
        data = _data_of(subject)
        self._check_split(subject, data, fold)
        out = subject / METRICS
        if (subject / MANIFEST).is_file():  # an artifact is not written into
            out = self._run_folder(self.model, fold).with_suffix(".json")
            out.parent.mkdir(parents=True, exist_ok=True)
        self._python(
            ["models.evaluation", str(subject), "--out", str(out), "--rounds", str(self.rounds)]
        )
        content = json.loads(out.read_text(encoding="utf-8"))
        return {**_figures(content), "window": data["window"]}

    def _check_split(self, subject: Path, data: Mapping[str, Any], fold: Fold) -> None:
        parts = self.protocol.split(fold)
        wanted = {name: getattr(parts, name) for name in ("set", "train", "validation", "test")}
        if fold.seed is not None:
            wanted["seed"] = fold.seed
        for name, value in wanted.items():
            plain = list(value) if isinstance(value, tuple) else value
            if data[name] != plain:
                raise CellInvalid(
                    f"{subject} has {name} = {data[name]}; fold {fold.number} of "
                    f"{self.protocol.name} has {plain}"
                )

    def _python(self, command: list[str], *kept_open: int) -> None:
        """Run a module of ours in a process of its own, whose progress is seen here."""
        if self.folders.data is not None:
            command = [*command, "--data", self.folders.data]
        if self.threads is not None:
            command = [*command, "--threads", str(self.threads)]
        whole = [sys.executable, "-m", *command]
        done = subprocess.run(whole, check=False, pass_fds=kept_open)  # noqa: S603
        if done.returncode:
            raise CellInvalid(f"python -m {' '.join(command)} ended with {done.returncode}")

    def _run_folder(self, model: str, fold: Fold) -> Path:
        return self.folders.runs / self.protocol.name / model / f"fold-{fold.number}"


def _figures(content: Mapping[str, Any]) -> Figures:
    """Return what is kept of a report; the AUC that is quoted is from the second answer on."""
    scored, every = content["all"], content["every_answer"]
    figures = {name: _rounded(scored[name]["value"]) for name in ("auc", "accuracy", "log_loss")}
    figures["auc_low"], figures["auc_high"] = (_rounded(scored["auc"][k]) for k in ("low", "high"))
    figures["auc_every_answer"] = _rounded(every["auc"]["value"])
    figures["ece"] = _rounded(scored["ece"]["value"])
    if "calibration" in content:
        figures["ece_uncalibrated"] = content["calibration"]["ece"]["before"]["all"]
    return {
        "scored": content["scored"],
        **figures,
        "answers": scored["answers"],
        "every_answers": every["answers"],
        "users": every["users"],
    }


def _data_of(subject: Path) -> dict[str, Any]:
    """Return what a run or an artifact was trained on, with its seed, and its window."""
    for name, key in ((MANIFEST, "training"), (RUN, "data")):
        if (subject / name).is_file():
            content = json.loads((subject / name).read_text(encoding="utf-8"))
            data = content[key]
            seed = data.get("seed", content.get("seed"))
            return {**data["source"], "seed": seed, "window": content["window"]}
    raise CellInvalid(f"{subject} is neither a run nor an artifact")


def _read(recipe: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(recipe.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise CellInvalid(f"{recipe}: {exc}") from exc


def _short(path: Path) -> str:
    """Return a path from the working directory on; of one that lies elsewhere its last two parts.

    It is kept and shown to others: where a checkout lies on this machine is none of theirs.
    """
    whole, here = path.resolve(), Path.cwd()
    return (
        str(whole.relative_to(here)) if whole.is_relative_to(here) else "/".join(whole.parts[-2:])
    )


def _rounded(value: float) -> float:
    return round(value, 6)
