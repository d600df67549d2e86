"""What predictions stand on: how users stand with each model, and the runs that go on there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from app.engine.asked import Asked, AskedMany
from app.engine.many import ManyScore
from app.engine.memory import Held, Memories, Memory
from app.engine.model import Scored, ServedModel
from app.errors import ScoringFailed
from app.records import Records, members_of
from app.store.histories import Histories
from app.store.states import Known, Standing, Standings, StateRule, States
from app.telemetry import Metrics
from models.contract.interaction import Query, key_of
from models.contract.queries import Queries
from models.contract.window import History, window_start

log = logging.getLogger(__name__)

_SETS_BYTES = 16_000_000
_A_SET_BYTES, _A_MEMBER_BYTES = 250, 46  # with its place in a dictionary; a number, and where it is


@dataclass(slots=True, kw_only=True)
class Past:
    """What predictions for one user stand on."""

    standings: dict[str, Standing]  # by the model's `state_key`, as all here
    sets: Mapping[int, Sequence[int]]  # members of the skill sets that no vocabulary knows
    user_id: str | None = None  # None where the history came with the ask
    memories: dict[str, Memory] = field(default_factory=dict)  # those that fit
    knowledge: asyncio.Task[Scored] | None = None
    catching_up: dict[str, asyncio.Task[Scored]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Crowd:
    """What predictions of one model for many users stand on; their pasts in columns."""

    user_ids: Sequence[str]
    standings: Standings
    sets: Mapping[int, Sequence[int]]  # as of a past, of all of them

    def standing(self, row: int) -> Standing:
        """Return how the user of a row stands, where the history could be read."""
        standing = self.standings.one(row)
        assert standing is not None, "its caller was told that it cannot"
        return standing


class SkillSets:
    """Members of skill sets, in so many bytes at most: then all are forgotten, and met again."""

    def __init__(self, max_bytes: int) -> None:
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._sets: dict[int, tuple[int, ...]] = {}

    def among(self, keys: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return the members of those of these sets that are known."""
        return {k: self._sets[k] for k in keys if k in self._sets}

    def keep(self, sets: Mapping[int, tuple[int, ...]]) -> None:
        """Know these, as far as there is room."""
        for key, members in sets.items():
            more = _A_SET_BYTES + _A_MEMBER_BYTES * len(members)
            if key in self._sets or more > self._max_bytes:
                continue
            if self.nbytes + more > self._max_bytes:
                self._sets.clear()
                self.nbytes = 0
            self._sets[key] = members
            self.nbytes += more


class Pasts:
    """Reads how users stand, runs models from there, and keeps the states that come of it.

    Methods raise `Overloaded`, `ScoringFailed` and the store's errors.
    """

    def __init__(
        self,
        models: Iterable[ServedModel],
        histories: Histories,
        states: States,
        metrics: Metrics,
        memories: Memories,
    ) -> None:
        self._memories = memories
        self._histories = histories
        self._states = states
        self._metrics = metrics
        self._rules = {m.state_key: _state_rule(m) for m in models}
        self._sets = SkillSets(_SETS_BYTES)

    async def of_user(self, user_id: str, models: Sequence[ServedModel]) -> Past:
        """Read what these models need of a user."""
        held = {
            m.state_key: self._memories.find(user_id, m.state_key) for m in models if m.holds_memory
        }
        with self._metrics.stage("store_read"), self._metrics.watched():
            if len(models) == 1:
                found = [await self._stand(user_id, models[0], held)]
            else:
                found = await asyncio.gather(*(self._stand(user_id, m, held) for m in models))
            keys = {k for s in found for k in self._unknown_sets(s.interactions, models)}
            sets = await self._named_sets(keys) if keys else {}
        past = Past(standings={}, sets=sets, user_id=user_id)
        for model, standing in zip(models, found, strict=True):
            if model.keeps_state:
                self._metrics.states_found.labels(model.name, _found(standing)).inc()
            past.standings[model.state_key] = standing
            if (one := held.get(model.state_key)) is not None and standing.is_known:
                past.memories[model.state_key] = one.memory
                past.standings[model.state_key] = standing._replace(state=one.memory.state)
        return past

    async def _stand(
        self, user_id: str, model: ServedModel, held: Mapping[str, Held | None]
    ) -> Standing:
        one = held.get(model.state_key)
        known = None if one is None else Known(one.history, one.memory.start, one.memory.seen)
        return await self._states.stand(user_id, self._rules[model.state_key], known)

    def forget(self, user_id: str) -> None:
        """Hold nothing of a user any more."""
        self._memories.forget(user_id)  # by versions too that answer no more and are still open
        self._metrics.memory_bytes.set(self._memories.nbytes)

    async def of_users(self, user_ids: Sequence[str], model: ServedModel) -> Crowd:
        """Read what a model that keeps states needs of users, in one trip."""
        with self._metrics.stage("store_read"), self._metrics.watched():
            standings = await self._states.stand_all(user_ids, self._rules[model.state_key])
            keys = self._unknown_sets(standings.interactions, [model])
            sets = await self._named_sets(keys) if keys else {}
        table = standings.table[standings.table["kept"] >= 0]
        has_state, is_current = table["has_state"] > 0, table["total"] == table["seen"]
        for found, users in (
            ("absent", ~has_state),
            ("behind", has_state & ~is_current),
            ("current", has_state & is_current),
        ):
            if times := int(np.count_nonzero(users)):
                self._metrics.states_found.labels(model.name, found).inc(times)
        return Crowd(user_ids, standings, sets)

    def given(self, records: Records, models: Sequence[ServedModel]) -> Past:
        """Return the past that came with an ask."""
        keys = self._unknown_sets(records.interactions, models)
        return Past(
            standings={m.state_key: _given(records.interactions, m) for m in models},
            sets=_members(keys, records.texts),
        )

    async def read(self, interactions: NDArray[np.void], model: ServedModel) -> History:
        """Return stored interactions in a model's integers."""
        with self._metrics.stage("store_read"), self._metrics.watched():
            keys = self._unknown_sets(interactions, [model])
            sets = await self._named_sets(keys) if keys else {}
        return model.vocabulary.read(interactions, sets=sets)

    def _unknown_sets(
        self, interactions: NDArray[np.void], models: Sequence[ServedModel]
    ) -> set[int]:
        if not len(interactions) or not interactions["skills_key"].any():
            return set()  # the common case: callers leave skills to the vocabulary
        vocabularies = {m.vocabulary.fingerprint: m.vocabulary for m in models}
        return {k for v in vocabularies.values() for k in v.unknown_sets(interactions).tolist()}

    async def _named_sets(self, keys: set[int]) -> dict[int, tuple[int, ...]]:
        """Return the members of skill sets; what a key stands for never changes, so it is kept."""
        known = self._sets.among(keys)
        if missing := keys - known.keys():
            found = _members(missing, await self._histories.texts(missing))
            self._sets.keep(found)
            known |= found
        return known

    async def score(
        self, model: ServedModel, query: Query, past: Past, *, is_shared: bool = False
    ) -> Scored:
        """Run a model over its window of `past`, from the state where it keeps one.

        `is_shared` says that others will go on from what comes out.
        """
        standing = past.standings[model.state_key]
        asked = _asked(standing, query, past.sets, past.memories.get(model.state_key))
        is_kept = is_shared or not self._keep_nothing_of(model, past)
        if past.user_id is None or not model.keeps_state or not is_kept:
            scored = await model.score(asked)
        else:
            scored = await self._followed(model, asked, past)
        self._metrics.waited("queue", scored.queued_s, ago_s=scored.run_s)
        self._metrics.waited("run", scored.run_s, windows=scored.windows)
        return scored

    def _keep_nothing_of(self, model: ServedModel, past: Past) -> bool:
        """Say whether what a run makes besides its answer would be of no use to anybody."""
        is_held = model.state_key in past.memories
        return self._memories.hold_nothing and not (model.state_bytes or is_held)

    async def score_all(
        self, model: ServedModel, queries: Queries, of_user: NDArray[np.int64], crowd: Crowd
    ) -> ManyScore:
        """Put queries to users, from their states; `of_user` (B,) is the row of each one's.

        Raises `ScoringFailed` where one of them fails: each is then to be asked alone.
        """
        standings, table = crowd.standings, crowd.standings.table
        asked = AskedMany(
            interactions=standings.interactions,
            rows=standings.rows,
            first=table["first"],
            start=table["start"],
            seen=table["seen"],
            has_state=table["has_state"] > 0,
            states=standings.states,
            queries=queries,
            of_user=of_user,
            sets=crowd.sets,
        )
        answered = await model.follow_many(asked)
        new = np.flatnonzero(asked.new)
        times = len(queries) + len(new)  # folding first is a run of its own for whoever asks alone
        self._metrics.waited("queue", answered.queued_s, times, ago_s=answered.run_s)
        self._metrics.waited("run", answered.run_s, times, windows=answered.windows)
        for row in new.tolist():
            standing = crowd.standing(row)
            self._metrics.answers_folded.labels(model.name).inc(standing.new)
            state = answered.result.state[row].tobytes()
            self._states.keep(crowd.user_ids[row], self._rules[model.state_key], standing, state)
        return answered.result

    async def _followed(self, model: ServedModel, asked: Asked, past: Past) -> Scored:
        """Go on from the kept state; where that is spoilt, from none, and keep what comes out."""
        assert past.user_id is not None, "only what is stored has a state"
        standing = past.standings[model.state_key]
        try:
            scored = await model.follow(asked)
        except ScoringFailed:
            if not standing.state and asked.memory is None:
                raise
            log.warning("state_spoilt", extra={"model": model.name})
            self._memories.forget(past.user_id, model.state_key)
            anew = replace(self._rules[model.state_key], key="")  # nothing is kept under it
            standing = await self._states.stand(past.user_id, anew)
            sets = await self._named_sets(self._unknown_sets(standing.interactions, [model]))
            scored = await model.follow(_asked(standing, asked.query, sets, None))
        if standing.new or scored.memory is not asked.memory:
            self._keep(model, standing, scored, past)
        return scored

    def _keep(self, model: ServedModel, standing: Standing, scored: Scored, past: Past) -> None:
        """Keep what a run has made, for those who ask next and for this past's own asks."""
        assert past.user_id is not None
        self._metrics.answers_folded.labels(model.name).inc(standing.new)
        state = b"" if scored.state is None else scored.state.tobytes()
        if state and standing.new:
            self._states.keep(past.user_id, self._rules[model.state_key], standing, state)
        if scored.memory is not None:
            past.memories[model.state_key] = scored.memory
            if standing.history.strip(b"\0"):  # one without a name cannot be told from another
                self._memories.keep(past.user_id, model.state_key, standing.history, scored.memory)
                self._metrics.memory_bytes.set(self._memories.nbytes)
        standing = standing._replace(seen=standing.total, state=state)
        spares_window = scored.memory is not None or not model.reads_whole_window
        if spares_window and len(standing.interactions) > 1:
            # The last one gives the query its lag; all of them have been seen.
            last = standing.interactions[-1:]
            standing = standing._replace(interactions=last, first=standing.total - 1)
        past.standings[model.state_key] = standing


def _state_rule(model: ServedModel) -> StateRule:
    return StateRule(
        key=model.state_key,
        length=model.window.length,
        cut=model.window.cut,
        whole_window=model.reads_whole_window,
        size=model.state_bytes,
    )


def _given(interactions: NDArray[np.void], model: ServedModel) -> Standing:
    """Return how somebody stands whose whole history came with the ask."""
    total = len(interactions)
    start = window_start(total, model.window.length, model.window.cut)
    return Standing(interactions, 0, total, total, start, start, b"", b"")


def _asked(
    standing: Standing,
    query: Query,
    sets: Mapping[int, Sequence[int]],
    memory: Memory | None,
) -> Asked:
    return Asked(
        interactions=standing.interactions,
        first=standing.first,
        start=standing.start,
        seen=standing.seen,
        state=standing.state,
        query=query,
        sets=sets,
        memory=memory,
    )


def _found(standing: Standing) -> str:
    if not standing.state and not standing.is_known:
        return "absent"
    return "behind" if standing.new else "current"


def _members(keys: Iterable[int], texts: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """Return the keys of the members of each set whose text is known."""
    return {k: tuple(map(key_of, members_of(texts[k]))) for k in keys if k in texts}
