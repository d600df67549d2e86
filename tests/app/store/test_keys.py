"""Whatever a user is called: all that is kept of one lies in one slot, and nobody has another's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from app.settings import Settings
from app.store.histories import Amendment, Terms
from app.store.keys import BESIDE, CALLS, HISTORY, STATES, user_key
from app.store.opening import open_store
from benchmarks.stores import Clustered, clustered
from tests.app.store.test_histories import add, answers
from tests.app.store.test_states import RULE, kept

KINDS = (HISTORY, STATES, CALLS, BESIDE)
IDS = st.text(st.sampled_from("{}.a\x1fé"), min_size=1, max_size=6) | st.text(min_size=1)
ODD = (
    "}",
    "}}",
    "}u",
    "}{",
    "}{u}",
    "}.u",
    "{",
    "{}",
    "{}u",
    "{u",
    "u}",
    "u}v{w",
    "é}",
    "\U0001f600",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Clustered]:
    """A cluster of one server: as strict with keys as any."""
    with clustered(1, with_replicas=False) as opened:
        yield opened


@given(user_id=IDS)
@example(user_id="}")
@example(user_id="}" * 256)
@example(user_id="}u}v")
@example(user_id="}{}")
@example(user_id="{}u")
def test_all_keys_of_a_user_have_one_slot(cluster, user_id):
    """As a server reckons it, and as we do."""
    redis = cluster.masters[0].redis
    keys = [user_key(kind, user_id).encode() for kind in KINDS]

    (slot,) = {redis.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}
    assert {key_slot(key) for key in keys} == {slot}


def test_no_two_users_have_the_same_key():
    """Of all the names that could be mistaken for each other, up to six characters long."""
    names = {"".join(p) for length in range(1, 7) for p in product("{}.u", repeat=length)}

    assert len({user_key(kind, name) for kind in KINDS for name in names}) == len(names) * 4


@given(user_id=IDS.filter(lambda name: not name.startswith("}")))
def test_who_was_found_before_is_found_still(user_id):
    """Keys are in stores that outlive a version of this."""
    assert user_key(HISTORY, user_id) == f"kt:h1:{{{user_id}}}"


def test_users_with_braces_are_dealt_out_over_a_cluster():
    """One server has not all of them."""
    slots = {key_slot(user_key(HISTORY, f"}}}}{n}").encode()) for n in range(100)}

    assert len(slots) > 90


@pytest.mark.anyio
async def test_whoever_has_braces_in_the_name_is_served_by_a_cluster(cluster):
    """Everything that touches several keys of a user at once."""
    async with open_store(Settings(redis_url=cluster.url)) as store:
        for user_id in (*ODD, "}" * 256):
            await add(store.histories, user_id, answers(0, 3), Terms(call_key="k"))
            await store.histories.amend(user_id, 1, Amendment(correct=True), Terms(call_key="l"))
            await kept(store, user_id)

            stood = await store.states.stand(user_id, RULE)
            everything = await store.histories.everything(user_id)
            assert (stood.total, stood.state) == (3, b"abcd")
            assert (len(everything.states), len(everything.calls)) == (1, 2)
        for user_id in (*ODD, "}" * 256):
            assert await store.histories.forget(user_id)
            assert (await store.histories.everything(user_id)).states == []
