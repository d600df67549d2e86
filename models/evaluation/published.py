"""Test AUCs that others published for the same rows and the same split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_PYKT = "pyKT, arXiv 2206.11460, second-hand"
_PYKT_BOARD = "leaderboard that mirrors pyKT (RingoTC/KnowledgeTracingLeaderboard), second-hand"
_AKT = "AKT, arXiv 2007.12324, table 2"


class Published(NamedTuple):
    """One figure, of a model under a protocol."""

    model: str  # by the name its paper gives it
    auc: float
    deviation: float | None  # over folds, as published
    source: str


PUBLISHED: Mapping[str, Mapping[str, Published]] = {
    "assist2009": {  # question level, all in one
        "dkt": Published("DKT", 0.7541, 0.0011, _PYKT),
        "dkt_plus": Published("DKT+", 0.7547, None, _PYKT_BOARD),
        "sakt": Published("SAKT", 0.7246, 0.0017, _PYKT),
        "saint": Published("SAINT", 0.6958, None, _PYKT),
    },
    "assist2017": {
        "dkt": Published("DKT", 0.7263, 0.0054, _AKT),
        "dkt_plus": Published("DKT+", 0.7124, 0.0041, _AKT),
        "sakt": Published("SAKT", 0.6569, 0.0027, _AKT),
    },
    "statics2011": {
        "dkt": Published("DKT", 0.8233, 0.0039, _AKT),
        "dkt_plus": Published("DKT+", 0.8301, 0.0039, _AKT),
        "sakt": Published("SAKT", 0.8029, 0.0032, _AKT),
    },
}
"""By protocol, then by our name of the model."""

BEST: Mapping[str, Published] = {
    "assist2009": Published("QIKT", 0.7878, None, _PYKT_BOARD),
    "assist2017": Published("AKT-R", 0.7702, 0.0026, _AKT),
    "statics2011": Published("DKT+", 0.8301, 0.0039, _AKT),
}
"""By protocol, the best of any model."""

HELD_AGAINST_BEST = frozenset({"saint", "saint_plus", "last_query", "dkt_asked", "ensemble"})
"""Models of ours that are held against the best where nobody published their own figure."""


def published(protocol: str, model: str) -> Published | None:
    """Return the figure of that very model, if there is one."""
    return PUBLISHED.get(protocol, {}).get(model)


def best_for(protocol: str, model: str) -> Published | None:
    """Return the best figure where the model is held against that, not against one of its own."""
    if model not in HELD_AGAINST_BEST or published(protocol, model) is not None:
        return None
    return BEST.get(protocol)
