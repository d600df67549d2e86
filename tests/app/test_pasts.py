"""What is known of skill sets is held within bounds, however large the sets are."""

from __future__ import annotations

import tracemalloc

import pytest

from app.pasts import SkillSets

MAX_BYTES = 1_000_000


def set_of(number: int, size: int) -> tuple[int, ...]:
    """Return members like those of keys: numbers of 64 bits, which no other set shares."""
    return tuple(2**63 + number * 64 + place for place in range(size))


@pytest.mark.parametrize("size", [1, 5, 64])
def test_skill_sets_take_no_more_room_than_they_may(size):
    """Of real memory; and they take most of it before any is forgotten."""
    sets, most = SkillSets(MAX_BYTES), 0
    tracemalloc.start()
    try:
        for number in range(80_000 // (size + 4)):
            sets.keep({2**63 + number: set_of(number, size)})
            most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert MAX_BYTES / 3 < most < MAX_BYTES * 1.05


def test_skill_sets_are_known_until_there_is_no_room():
    """The newest always; one that is larger than all the room is known to nobody."""
    sets = SkillSets(10_000)
    for number in range(200):
        one = {number: set_of(number, 8)}
        sets.keep(one)
        assert sets.among([number, -1]) == one
        assert 0 < sets.nbytes <= 10_000
    assert 5 < len(sets.among(range(200))) < 20

    sets.keep({-1: set_of(0, 1000)})
    assert sets.among([-1]) == {}


def test_a_skill_set_that_is_met_again_takes_no_more_room():
    """Callers that wait for the same one each bring it."""
    sets = SkillSets(10_000)
    sets.keep({1: set_of(1, 8)})
    before = sets.nbytes
    sets.keep({1: set_of(1, 8)})

    assert sets.nbytes == before


def test_what_is_known_already_or_too_large_costs_nobody_a_place():
    """Callers who meet the same set at once, and one who sends a set that nobody could hold."""
    sets = SkillSets(2_000)
    kept = {number: set_of(number, 8) for number in range(3)}
    sets.keep(kept)
    full = sets.nbytes
    for _ in range(50):
        sets.keep({0: set_of(0, 8)})
        sets.keep({9: set_of(9, 10_000)})

    assert sets.among(kept) == kept
    assert sets.nbytes == full
