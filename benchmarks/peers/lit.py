"""LitServe: one process for HTTP, one worker that runs the model on batches of requests.

python -m benchmarks.peers.lit artifacts/dkt/4 unix:///tmp/store.sock 8001
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import litserve
from redis import Redis

from benchmarks.peers.graph import Graph
from benchmarks.peers.windows import key_of_history


class Ask(NamedTuple):
    """A question about to be asked of a user."""

    user_id: str
    question_id: str


class Predictor(litserve.LitAPI):  # type: ignore[misc]
    """Reads the histories of a batch in one round trip and runs the graph once for all."""

    def __init__(self, folder: Path, redis_url: str, **batching: Any) -> None:
        super().__init__(**batching)
        self._folder, self._redis_url = folder, redis_url

    def setup(self, device: str) -> None:
        """Open model and store in the worker."""
        del device
        self._graph = Graph(self._folder)
        self._redis = Redis.from_url(self._redis_url)

    def decode_request(self, request: dict[str, str]) -> Ask:
        """Read a body."""
        return Ask(request["user_id"], request["question_id"])

    def batch(self, inputs: list[Ask]) -> list[Ask]:
        """Leave a batch as it came: the windows are padded together when they are known."""
        return inputs

    def predict(self, asks: list[Ask]) -> list[float]:
        """Answer a batch."""
        histories: Any = self._redis.mget([key_of_history(ask.user_id) for ask in asks])
        return self._graph.predict(histories, [ask.question_id for ask in asks])

    def unbatch(self, output: list[float]) -> list[float]:
        """Part a batch's answers."""
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        """Write an answer."""
        return {"p_correct": output}


def main(folder: str, redis_url: str, port: str) -> None:
    """Serve until told to stop."""
    # A timeout of 0, the default, would keep the worker asking its queue without a pause.
    api = Predictor(Path(folder), redis_url, max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
