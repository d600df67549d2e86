"""What models have said of stored users, and what became of it.

A *forecast* is a prediction that was served, kept until its question is answered. An *outcome* is a
forecast and that answer; it names no user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FORECAST = np.dtype(
    [
        ("question_key", "<u8"),
        ("model_key", "<u8"),  # of its `state_key`: another version, or other files, another model
        ("p_correct", "<f4"),
        ("skill", "<u4"),  # the first of the question, in the model's integers
        ("lag", "u1"),  # which bucket; see `models.contract.inputs`
        ("length", "u1"),  # which bucket
        ("reserved", "<u2"),
    ]
)
"""A forecast, as it is handed over; the store adds the time."""

KEPT_FORECAST = np.dtype(
    [*(FORECAST.descr[:2]), ("noted_s", "<u4"), *(FORECAST.descr[2:])]  # Unix time
)
"""A forecast as it lies in the store."""

OUTCOME = np.dtype(
    [
        *FORECAST.descr[2:6],
        ("right", "u1"),
        ("reserved", "u1"),
        ("answered_s", "<u4"),  # Unix time, by the store's clock
    ]
)
"""A forecast and what was answered."""


class Outcomes(NamedTuple):
    """The newest outcomes of a model's forecasts."""

    table: NDArray[np.void]  # OUTCOME, oldest first
    total: int  # that there ever were


class Forecasts(Protocol):
    """Forecasts of all users, and what became of them."""

    @property
    def within_s(self) -> int:
        """For how long a forecast waits for its answer."""
        ...

    @property
    def most(self) -> int:
        """How many outcomes are kept of a model."""
        ...

    def note(self, user_id: str, model_key: int, forecasts: bytes) -> None:
        """Keep forecasts of one model (`FORECAST`) soon; the oldest are lost of too many."""
        ...

    def note_all(self, model_key: int, noted: Sequence[tuple[str, bytes]]) -> None:
        """Keep forecasts of many users, as `note` does those of one."""
        ...

    async def outcomes(self, model_key: int) -> Outcomes:
        """Return what became of a model's newest forecasts; raise `StoreUnavailable`."""
        ...
