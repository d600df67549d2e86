"""A store that asks for a password, which stands in a file."""

from __future__ import annotations

import pytest

from app.errors import StoreUnavailable
from app.settings import Settings, SettingsInvalid
from app.store.opening import open_store
from tests.app.store.conftest import a_server
from tests.app.store.test_histories import add, answers

pytestmark = pytest.mark.anyio


async def test_the_file_opens_the_store(tmp_path):
    """With the end of the line that an editor leaves."""
    secret = tmp_path / "password"
    secret.write_text("sesame\n")
    with a_server("--requirepass", "sesame") as socket:
        settings = Settings(redis_url=f"unix://{socket}", redis_password_file=secret)
        async with open_store(settings) as store:
            await add(store.histories, "u", answers(0, 3))

            assert len(await store.histories.read("u", 10)) > 0


@pytest.mark.parametrize("content", ["barley", None])
async def test_without_the_right_one_nothing_is_answered(tmp_path, content):
    """It is an error of the store's, never an empty history."""
    secret = tmp_path / "password"
    if content is not None:
        secret.write_text(content)
    with a_server("--requirepass", "sesame") as socket:
        settings = Settings(
            redis_url=f"unix://{socket}", redis_password_file=secret if content else None
        )
        async with open_store(settings) as store:
            with pytest.raises(StoreUnavailable):
                await add(store.histories, "u", answers(0, 3))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
async def test_a_file_without_a_password_is_named(tmp_path, content):
    """Before anything is asked of the store."""
    secret = tmp_path / "password"
    if content is not None:
        secret.write_bytes(content)

    with pytest.raises(SettingsInvalid, match="KT_REDIS_PASSWORD_FILE"):
        async with open_store(Settings(redis_url="unix:///none", redis_password_file=secret)):
            pass
