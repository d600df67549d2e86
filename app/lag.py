"""How late the event loop comes to what is due: whatever holds it up holds up every request."""

from __future__ import annotations

import asyncio
from time import monotonic

import numpy as np

from app.noting import Observed

_EVERY_S = 0.1


async def loop_lag(histogram: Observed) -> None:
    """Note the lateness of a timer, for ever.

    While the loop is held up its next times pass as well: each counts by how late it is, so that
    one long wait does not weigh as little as one short one.
    """
    due_s = monotonic() + _EVERY_S
    while True:
        await asyncio.sleep(due_s - monotonic())
        now_s = monotonic()  # the loop's own clock may stand still while it works off what is due
        late_s = now_s - np.arange(due_s, max(now_s, due_s + _EVERY_S / 2), _EVERY_S)
        histogram.observe_all(np.maximum(late_s, 0.0).tolist())
        due_s = now_s + _EVERY_S
