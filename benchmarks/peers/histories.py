"""The same stored histories for ktserve and for its peers, in one store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from redis import Redis

from app.records import Answer, records_of
from app.store.embedded import embedded_server
from benchmarks.load import answers_of, store
from benchmarks.peers.windows import key_of_history
from models.contract.vocabulary import Vocabulary


@contextmanager
def own_store(data_dir: Path) -> Iterator[str]:
    """Start a store and give its address; stop it at the end."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(embedded_server(data_dir)) as socket,
    ):
        yield f"unix://{socket}"


def fill(
    redis_url: str, ktserve_url: str, users: list[str], n: int, vocabulary: Vocabulary
) -> None:
    """Give each user `n` answers, no two users the same: reported to ktserve, written for peers."""
    with Redis.from_url(redis_url) as redis:
        for number, user_id in enumerate(users):
            answers = answers_of(vocabulary, n, seed=(n, number))
            store(ktserve_url, user_id, answers)
            records = records_of([Answer(**answer) for answer in answers])
            redis.set(key_of_history(user_id), records.interactions.tobytes())
