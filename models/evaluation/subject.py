"""What is measured: a run's network or an artifact's graph, asked in one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.artifact import MANIFEST, WindowRule
from models.contract.vocabulary import Vocabulary
from models.datasets.encoded import EncodedUser
from models.datasets.split import Split, SplitConfig, open_split
from models.evaluation.graph import open_graph
from models.evaluation.predictions import Progress, Row, predict, predict_rows
from models.evaluation.run import Run, open_run
from models.nets import NETWORKS

Found = list[NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An opened run or artifact."""

    name: str
    run: Run | None  # None for an artifact
    score: Callable[..., NDArray[np.float32]] | None  # an artifact's graph; None for a run
    window: WindowRule
    vocabulary: Vocabulary
    longest: int | None  # places it has positions for; None for a network without positions
    data: Mapping[str, Any]  # source and split
    seed: int

    @property
    def is_causal(self) -> bool:
        """Whole blocks of rows are answered in one pass."""
        return self.run is not None and bool(self.run.network.is_causal)

    def split(self, folder: str | None = None) -> Split:
        """Open the data it was trained on, split as then; `folder` is where known sets lie now."""
        source = dict(self.data["source"])
        if folder is not None:
            source["folder"] = folder
        return open_split(SplitConfig.of(source), seed=self.seed)

    def predict(
        self,
        users: Sequence[EncodedUser],
        *,
        rule: WindowRule | None = None,
        rows: Sequence[Row] | None = None,
        progress: Progress | None = None,
    ) -> Found:
        """Return for each user p of every row, NaN where `rows` does not name it.

        A network's own probabilities, uncalibrated; a graph's as they are served.
        """
        rule = rule or self.window
        if self.run is not None:
            return predict(self.run.network, users, rule, rows=rows, progress=progress)
        found = [np.full(len(u), np.nan) for u in users]
        if rows is None:
            rows = [(u, r) for u, user in enumerate(users) for r in range(len(user))]
        assert self.score is not None
        predict_rows(self.score, users, rule, rows, found, progress)
        return found


def open_subject(folder: Path) -> Subject:
    """Open a run or an artifact; raise `RunInvalid` or `ManifestError` where it is neither."""
    if (folder / MANIFEST).is_file():
        graph = open_graph(folder)
        return Subject(
            name="/".join(folder.resolve().parts[-2:]),
            run=None,
            score=graph.score,
            window=graph.window,
            vocabulary=graph.vocabulary,
            longest=_longest(graph.kind, graph.config),
            data=graph.data,
            seed=graph.seed,
        )
    run = open_run(folder)
    return Subject(
        name=folder.resolve().name,
        run=run,
        score=None,
        window=run.window,
        vocabulary=run.vocabulary,
        longest=_longest(run.kind, run.config),
        data=run.data,
        seed=run.seed,
    )


def _longest(kind: str, config: Mapping[str, Any]) -> int | None:
    config_class, _ = NETWORKS[kind]
    return getattr(config_class(**config), "length", None)
