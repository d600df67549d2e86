"""Who comes during a trip goes with the next, and everybody comes home."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import Overloaded, StoreUnavailable
from app.store.trips import Trips

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Road:
    """Answers an ask with twice its number once it is let go; notes who travelled together."""

    def __init__(self) -> None:
        self.trips: list[list[int]] = []
        self.free = asyncio.Event()

    async def send(self, asks):
        self.trips.append(list(asks))
        await self.free.wait()
        if 99 in asks:
            raise StoreUnavailable("the road is washed away")
        if 13 in asks:
            raise OSError("the road is closed")
        return [ValueError(str(a)) if a == 7 else 2 * a for a in asks]


async def test_callers_share_the_trip_after_the_one_under_way():
    """The first does not wait for company."""
    road = Road()
    trips = Trips(road.send, most=3, max_waiting=9)
    callers = [asyncio.create_task(trips(n)) for n in range(1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    callers += [asyncio.create_task(trips(n)) for n in range(1, 6)]
    await asyncio.sleep(0)
    road.free.set()

    assert await asyncio.gather(*callers) == [0, 2, 4, 6, 8, 10]
    assert road.trips == [[0], [1, 2, 3], [4, 5]]


async def test_an_error_is_of_one_or_of_a_trip_and_never_of_the_next():
    """As `send` says it."""
    road = Road()
    road.free.set()
    trips = Trips(road.send, most=2, max_waiting=9)

    found = await asyncio.gather(*(trips(n) for n in (6, 7, 13, 1, 2)), return_exceptions=True)

    assert (found[0], found[4]) == (12, 4)
    assert isinstance(found[1], ValueError)
    assert [type(f) for f in found[2:4]] == [OSError, OSError]


async def test_who_leaves_is_not_taken_along():
    """And the others are."""
    road = Road()
    trips = Trips(road.send, most=9, max_waiting=9)
    callers = [asyncio.create_task(trips(0))]
    await asyncio.sleep(0.01)
    callers += [asyncio.create_task(trips(n)) for n in (1, 2)]
    await asyncio.sleep(0.01)
    callers[0].cancel()
    callers[1].cancel()
    await asyncio.sleep(0.01)
    road.free.set()

    assert await callers[2] == 4
    assert road.trips == [[0], [2]]


async def test_who_waits_behind_a_trip_that_found_no_store_does_not_go_to_see():
    """A store that hangs is found out once, not once a trip; who comes later tries anew."""
    road = Road()
    trips = Trips(road.send, most=1, max_waiting=9)
    callers = [asyncio.create_task(trips(n)) for n in (99, 1, 2)]
    await asyncio.sleep(0.01)
    road.free.set()

    found = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(f) for f in found] == [StoreUnavailable] * 3
    assert road.trips == [[99]]
    assert await trips(3) == 6


async def test_too_many_waiting_are_refused_at_once():
    """With the error that says when to come again."""
    road = Road()
    trips = Trips(road.send, most=1, max_waiting=2)
    callers = [asyncio.create_task(trips(0))]
    await asyncio.sleep(0.01)
    callers += [asyncio.create_task(trips(n)) for n in (1, 2)]
    await asyncio.sleep(0.01)

    with pytest.raises(Overloaded, match="2 callers"):
        await trips(3)

    road.free.set()
    assert await asyncio.gather(*callers) == [0, 2, 4]
