"""SAINT+: SAINT, whose decoder also reads times.

Shin et al., "SAINT+", 2021 (arXiv 2010.12042). The time that the answer before took moves to the
right with that answer; the lag before a question is known when it is asked, and stands at its own
place.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.nets.layers.times import TimeForm
from models.nets.saint import Saint, SaintConfig


@dataclass(frozen=True, kw_only=True)
class SaintPlusConfig(SaintConfig):
    """SAINT's sizes and options, and how the two times are read."""

    recency: bool = True
    lag: TimeForm = "categorical"
    elapsed: TimeForm = "none"


class SaintPlus(Saint):
    """Encoder of questions, decoder of answers and times."""

    def __init__(self, config: SaintPlusConfig) -> None:
        super().__init__(config, elapsed=config.elapsed, lag=config.lag)
