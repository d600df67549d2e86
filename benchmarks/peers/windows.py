"""From a stored history to what the graph reads, for every peer alike.

A peer keeps a user's answers as one string of the interactions that ktserve stores, 40 bytes each,
and builds windows by the contract's encoder for many users at once, without the counts that DKT
does not read: the cheapest way there is in this repository, so that no peer pays for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.artifact import VOCABULARY, Manifest
from models.contract.following import following, padded
from models.contract.interaction import INTERACTION
from models.contract.vocabulary import Vocabulary
from models.contract.window import window_start


def key_of_history(user_id: str) -> str:
    """Return where the peers find a user's answers."""
    return f"peers:{user_id}"


class Windows:
    """The windows of one artifact."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.load(folder)
        self.vocabulary = Vocabulary.load(folder / VOCABULARY)
        self.graph = folder / self.manifest.graphs["sequence"].file

    def inputs(
        self, histories: Sequence[bytes | None], question_ids: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Return the inputs of a run, (B, L): a stored history (None: no answers) a question."""
        rule = self.manifest.window
        stored = [np.frombuffer(h or b"", INTERACTION) for h in histories]
        rows = np.array([len(s) for s in stored])
        starts = np.array([window_start(int(n), rule.length, rule.cut) for n in rows])
        after = following(
            self.vocabulary.read(np.concatenate(stored)),
            [self.vocabulary.query(q) for q in question_ids],
            rows=rows,
            before_window=starts,
            before_new=starts,
            seen=np.zeros(len(stored), np.int64),
            with_counts=False,
        )
        side: Any = rule.side
        return padded(after, side)
