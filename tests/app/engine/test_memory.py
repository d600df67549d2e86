"""What is held of users stays within its bounds and says what it stands on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.memory import IDLE_S, Memories, Memory, Rows


def memory(seen: int, start: int = 0) -> Memory:
    rows = Rows.none(100).grown(np.zeros((seen - start, 100), np.float32))
    return Memory(start=start, seen=seen, rows=rows)


@given(sizes=st.lists(st.integers(0, 60), max_size=6))
def test_rows_grow_without_changing_what_stood_before(sizes):
    """Whoever read them goes on reading the same."""
    rng = np.random.default_rng(0)
    parts = [rng.random((n, 3), np.float32) for n in sizes]
    stages = [Rows.none(3)]
    for part in parts:
        stages.append(stages[-1].grown(part))

    for number, stage in enumerate(stages):
        expected = np.concatenate([np.zeros((0, 3)), *parts[:number]])
        np.testing.assert_array_equal(stage.array, expected)
        assert len(stage) == len(expected)
        assert stage.array.flags.c_contiguous


def test_two_who_grow_the_same_rows_at_a_time_do_not_disturb_each_other():
    """They stand on the same answers: one has seen further."""
    before = Rows.none(1).grown(np.array([[1.0]], np.float32))

    near = before.grown(np.array([[2.0]], np.float32))
    far = before.grown(np.array([[2.0], [3.0]], np.float32))

    assert before.array.ravel().tolist() == [1]
    assert near.array.ravel().tolist() == [1, 2]
    assert far.array.ravel().tolist() == [1, 2, 3]


@given(
    keeps=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), max_size=40),
    room=st.integers(0, 300_000),
)
def test_no_more_is_held_than_there_is_room_for(keeps, room):
    """The users seen last are; what must go is counted."""
    gone = []
    memories = Memories(room, evicted=gone.append)
    for user, seen in keeps:
        memories.keep(f"u{user}", "m", b"abcd", memory(seen))

        assert memories.nbytes <= room
        newest = memories.find(f"u{user}", "m")
        assert (newest is not None) or memory(seen).nbytes > room

    held = [h for n in range(10) if (h := memories.find(f"u{n}", "m")) is not None]
    assert memories.nbytes == sum(h.memory.nbytes for h in held)
    assert len(memories) == len(held)


def test_who_was_not_seen_for_longest_goes_first():
    """To ask counts as seen."""
    memories = Memories(2 * memory(50).nbytes)
    for user in ("a", "b"):
        memories.keep(user, "m", b"abcd", memory(50))
    memories.find("a", "m")

    memories.keep("c", "m", b"abcd", memory(50))

    assert memories.find("b", "m") is None
    assert memories.find("a", "m") is not None


@pytest.mark.parametrize(
    ("history", "later", "is_taken"),
    [
        (b"abcd", memory(3), False),
        (b"abcd", memory(9), True),
        (b"efgh", memory(3), True),
        (b"abcd", memory(4, start=2), True),
    ],
    ids=["knows less", "knows more", "another history", "another window"],
)
def test_what_knows_less_does_not_take_the_place_of_what_knows_more(history, later, is_taken):
    """Two runs for one user may end in any order."""
    memories = Memories(10**9)
    memories.keep("a", "m", b"abcd", memory(5))

    memories.keep("a", "m", history, later)

    assert (memories.find("a", "m").memory is later) is is_taken


def test_what_nobody_asks_for_is_not_held_for_ever():
    """Another server may have been told to forget its user."""
    now_s = [0.0]
    memories = Memories(10**9, clock=lambda: now_s[0])
    memories.keep("a", "m", b"abcd", memory(5))
    now_s[0] = IDLE_S + 1

    memories.keep("b", "m", b"abcd", memory(5))

    assert memories.find("a", "m") is None
    assert memories.nbytes == memory(5).nbytes


def test_a_forgotten_user_is_held_no_more():
    """And the room is free again."""
    memories = Memories(10**9)
    memories.keep("a", "m", b"abcd", memory(5))

    memories.forget("a", "m")
    memories.forget("nobody", "m")

    assert memories.find("a", "m") is None
    assert memories.nbytes == 0
