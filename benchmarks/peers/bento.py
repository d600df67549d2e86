"""BentoML: one worker, adaptive batching.

    python -m bentoml serve benchmarks.peers.bento:Predictor --port 8001

Model folder and store stand in PEERS_MODEL and PEERS_REDIS_URL. A batchable API takes a list and
gives one: a request holds a list of one question.
"""

# No `from __future__ import annotations`: BentoML reads the types of an API where it is declared.

import os
from pathlib import Path
from typing import Any

import bentoml
from pydantic import BaseModel
from redis import Redis

from benchmarks.peers.graph import Graph
from benchmarks.peers.windows import key_of_history


class Ask(BaseModel):
    """A question about to be asked of a user."""

    user_id: str
    question_id: str


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Predictor:
    """Reads the histories of a batch in one round trip and runs the graph once for all."""

    def __init__(self) -> None:
        self._graph = Graph(Path(os.environ["PEERS_MODEL"]))
        self._redis = Redis.from_url(os.environ["PEERS_REDIS_URL"])

    @bentoml.api(route="/predict", batchable=True, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, asks: list[Ask]) -> list[float]:
        """Answer a batch."""
        histories: Any = self._redis.mget([key_of_history(ask.user_id) for ask in asks])
        return self._graph.predict(histories, [ask.question_id for ask in asks])
