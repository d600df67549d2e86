"""The embedded server: it dies with its parent, its data does not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from app.errors import StoreFull, StoreUnavailable
from app.records import Answer, records_of
from app.settings import Settings
from app.store import embedded
from app.store.opening import open_store
from tests.app.store.conftest import killed_at_its_40th_answer

pytestmark = pytest.mark.anyio


def store_of(data_dir: Path) -> int:
    return int((data_dir / "lock").read_text())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_killed_parent_takes_the_server_along_and_loses_nothing(tmp_path):
    """Every answer acknowledged before SIGKILL is there, and no server is left behind."""
    acknowledged = killed_at_its_40th_answer(tmp_path)
    left = store_of(tmp_path)
    async with open_store(Settings(data_dir=tmp_path)) as store:
        stored = await store.histories.read("u", 4096)
        assert store_of(tmp_path) != left

    assert not is_alive(left)
    assert stored.length in (acknowledged, acknowledged + 1)  # one may have been on its way
    assert not is_alive(store_of(tmp_path))


async def test_a_folder_has_one_owner(tmp_path, monkeypatch):
    """The second is refused and told who the first is."""
    monkeypatch.setattr(embedded, "_LOCK_WAIT_S", 0.1)
    async with open_store(Settings(data_dir=tmp_path)):
        with pytest.raises(StoreUnavailable, match=f"process {store_of(tmp_path)}"):
            async with open_store(Settings(data_dir=tmp_path)):
                pass


async def test_a_server_that_died_is_started_again(tmp_path):
    """With all it had acknowledged; until then calls are refused, not answered as if empty."""
    records = records_of([Answer(question_id="q", correct=True, event_id="e")])
    async with open_store(Settings(data_dir=tmp_path)) as store:
        await store.histories.append("u", records.interactions, records.texts)
        os.kill(store_of(tmp_path), signal.SIGKILL)
        until = time.monotonic() + 10
        while True:
            try:
                stored = await store.histories.read("u", 10)
                break
            except StoreUnavailable:
                assert time.monotonic() < until

        assert stored.length == 1


async def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    """The last lines of its log are in the error."""
    (tmp_path / "appendonlydir").write_text("a file where a folder should be")

    with pytest.raises(StoreUnavailable, match="append"):
        async with open_store(Settings(data_dir=tmp_path)):
            pass


async def test_a_full_store_still_reads(tmp_path):
    """A write without room is refused as such."""
    records = records_of([Answer(question_id="q", correct=True)])
    async with open_store(Settings(data_dir=tmp_path)) as store:
        await store.histories.append("u", records.interactions, records.texts)
        await store.histories._client.redis.config_set("maxmemory", "1")

        with pytest.raises(StoreFull):
            await store.histories.append("u", records.interactions, records.texts)
        assert (await store.histories.read("u", 10)).length == 1


async def test_a_store_that_is_not_there_is_said_to_be_unavailable(tmp_path):
    """Without the address in the message: it may hold a password."""
    settings = Settings(redis_url=f"unix://:secret@{tmp_path}/none.sock")
    async with open_store(settings) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.histories.read("u", 1)

    assert "secret" not in str(caught.value)
