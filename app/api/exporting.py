"""All that is kept of a user, as one document; written in turns, so that others are answered."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

from app.answers import Export
from app.api.writing import json_of
from models.contract.interaction import NO_KEY

_TOGETHER = 1000


async def export_written(user_id: str, export: Export) -> bytes:
    """Return the JSON of `app.api.schemas.users.Exported`."""
    interactions = []
    for first in range(0, len(export.everything.interactions), _TOGETHER):
        interactions.append(json_of(_interactions(export, first, first + _TOGETHER))[1:-1])
        await asyncio.sleep(0)
    rest = json_of(_beside(user_id, export))
    return b'{"interactions":[' + b",".join(interactions) + b"]," + rest[1:]


def _interactions(export: Export, first: int, last: int) -> list[dict[str, Any]]:
    events = export.everything.interactions["event_key"][first:last].tolist()
    numbers = range(export.everything.first + first, export.everything.version.total)
    return [
        {
            "number": number,
            **answer._asdict(),
            "event_key": None if event == NO_KEY else f"{event:016x}",
        }
        for number, answer, event in zip(numbers, export.answers(first, last), events, strict=False)
    ]


def _beside(user_id: str, export: Export) -> dict[str, Any]:
    """Return what stands beside the interactions."""
    found = export.everything
    return {
        "user_id": user_id,
        "history_version": str(found.version),
        "states": [
            {
                "model": state.model,
                "history": state.history.hex(),
                "start": state.start,
                "seen": state.seen,
                "bytes": b64encode(state.content).decode(),
            }
            for state in found.states
        ],
        "calls": [
            {
                "key": call.key.hex(),
                "content": call.content.hex(),
                "until_s": call.until_s,
                "bytes": b64encode(call.answer).decode(),
            }
            for call in found.calls
        ],
        "forecasts": [
            {
                "question_id": export.texts.get(key),
                "question_key": f"{key:016x}",
                "model_key": f"{model_key:016x}",
                "noted_s": noted_s,
                **dict(zip(("p_correct", "skill", "lag", "history"), asked, strict=False)),
            }
            for key, model_key, noted_s, *asked in found.forecasts.tolist()
        ],
        "expires_in_ms": {
            "interactions": found.history_left_ms,
            "states": found.states_left_ms,
            "calls": found.calls_left_ms,
            "forecasts": found.forecasts_left_ms,
        },
    }
