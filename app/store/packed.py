"""Interactions as they lie in the store: 18 bytes each, and eight more where a history needs them.

All records of a history are in one form: the plain one, or that with the keys of named skills, with
those of events, or with both. Times are in 48 bits, the answer is the highest bit of the elapsed
time. Which form a history is in is the fourth letter of its header; `lua/history.lua` knows their
sizes, `lua/append.lua` takes a history from one form to another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import INTERACTION, UNKNOWN_MS

_PLAIN = [("question_key", "<u8"), ("asked_low", "<u4"), ("asked_high", "<u2"), ("end", "<u4")]
_SKILLS, _EVENT = ("skills_key", "<u8"), ("event_key", "<u8")

WIDEST = 5
"""The form that new records are handed over in; which they are kept in is the script's to say."""

FORMS = {
    1: INTERACTION,  # of before; the first answer that is added puts the history in another
    2: np.dtype(_PLAIN),
    3: np.dtype([*_PLAIN, _SKILLS]),
    4: np.dtype([*_PLAIN, _EVENT]),
    WIDEST: np.dtype([*_PLAIN, _SKILLS, _EVENT]),
}
"""The dtype of a record, by the number of its form."""

NO_TIME, NO_ELAPSED = (1 << 48) - 1, (1 << 31) - 1
"""A time that is not known, as it is stored."""


def packed(interactions: NDArray[np.void]) -> bytes:
    """Return records in the widest form.

    Raises `ValueError` where a time is before 1970, or takes more than 48 bits (31 for an elapsed
    one): it would come back as another.
    """
    asked, elapsed = interactions["asked_ms"], interactions["elapsed_ms"]
    if (asked < UNKNOWN_MS).any() or (asked >= NO_TIME).any():
        raise ValueError("asked_ms does not fit in 48 bits")
    if (elapsed < UNKNOWN_MS).any() or (elapsed == NO_ELAPSED).any():
        raise ValueError("elapsed_ms does not fit in 31 bits")
    records = np.empty(len(interactions), FORMS[WIDEST])
    for name in ("question_key", "skills_key", "event_key"):
        records[name] = interactions[name]
    records["asked_low"] = asked & 0xFFFFFFFF
    records["asked_high"] = (asked >> 32) & 0xFFFF
    right = interactions["response"].astype(np.uint32) << np.uint32(31)
    records["end"] = (elapsed.astype(np.uint32) & np.uint32(NO_ELAPSED)) | right
    return records.tobytes()


def unpacked(records: bytes, form: int) -> NDArray[np.void]:
    """Return the interactions (`INTERACTION`) behind records of one form."""
    kept = np.frombuffer(records, FORMS[form])
    if form == 1:
        return kept
    interactions = np.zeros(len(kept), INTERACTION)
    for name in kept.dtype.names or ():
        if name.endswith("_key"):
            interactions[name] = kept[name]
    asked = kept["asked_low"] | (kept["asked_high"].astype(np.int64) << 32)
    asked[asked == NO_TIME] = UNKNOWN_MS
    interactions["asked_ms"] = asked
    elapsed = (kept["end"] & np.uint32(NO_ELAPSED)).astype(np.int32)
    elapsed[elapsed == NO_ELAPSED] = UNKNOWN_MS
    interactions["elapsed_ms"] = elapsed
    interactions["response"] = kept["end"] >> np.uint32(31)
    return interactions


def unpacked_all(records: Sequence[bytes], forms: NDArray[np.uint16]) -> NDArray[np.void]:
    """Return the interactions of several histories, one after the other; `forms` is of each."""
    found = np.unique(forms).tolist()
    if len(found) < 2:  # the common case: callers write alike
        return unpacked(b"".join(records), found[0] if found else WIDEST)
    sizes = np.array([FORMS[form].itemsize for form in forms.tolist()])
    counts = np.array([len(one) for one in records]) // sizes
    interactions = np.empty(counts.sum(), INTERACTION)
    for form in found:
        of_these = forms == form
        together = b"".join(one for one, is_one in zip(records, of_these, strict=True) if is_one)
        interactions[np.repeat(of_these, counts)] = unpacked(together, form)
    return interactions
