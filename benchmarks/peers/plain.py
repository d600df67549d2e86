"""Plain FastAPI on uvicorn: a request reads its history and is answered by one run of its own.

    python -m benchmarks.peers.plain onnx artifacts/dkt/4 unix:///tmp/store.sock 8001

`onnx` runs the graph in ONNX Runtime, `torch` the network in eager torch.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis

from app.engine.cores import usable_cores
from benchmarks.peers.windows import key_of_history


class Ask(BaseModel):
    """A question about to be asked of a user."""

    user_id: str
    question_id: str


class Answer(BaseModel):
    """How likely it is to be answered right."""

    p_correct: float


class Model(Protocol):
    """Histories and questions in, probabilities out."""

    def predict(
        self, histories: Sequence[bytes | None], question_ids: Sequence[str]
    ) -> list[float]:
        """Return p_correct of each question."""
        ...


def create_app(model: Model, redis_url: str) -> FastAPI:
    """Return the application."""
    redis = Redis.from_url(redis_url)
    # A thread a core: the loop reads other requests meanwhile, and no run waits for another's turn.
    threads = ThreadPoolExecutor(usable_cores())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with threads:
            yield
        await redis.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(ask: Ask) -> Answer:
        history: Any = await redis.get(key_of_history(ask.user_id))
        (p_correct,) = await asyncio.get_running_loop().run_in_executor(
            threads, model.predict, [history], [ask.question_id]
        )
        return Answer(p_correct=p_correct)

    return app


def main(kind: str, folder: str, redis_url: str, port: str) -> None:
    """Serve until told to stop."""
    uvicorn.run(
        create_app(_opened(kind, Path(folder)), redis_url),
        port=int(port),
        log_level="error",
        access_log=False,
    )


def _opened(kind: str, folder: Path) -> Model:
    # Each environment has only one of the two libraries.
    if kind == "torch":
        from benchmarks.peers.network import Network

        return Network(folder)
    from benchmarks.peers.graph import Graph

    return Graph(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
