"""Many predictions at once, of users whose states are kept: in columns, and in few runs.

What a single ask has of its own (a task, a place in the store's trip, a future in the batcher's
queue) costs more than its share of the run. Here many asks have these together, piece by piece, so
that nobody who asks beside them waits for more than a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.asks import DECIMALS, Ask, Prediction, ref_of, selected, unseen_of
from app.engine.many import ManyScore
from app.engine.model import ServedModel
from app.errors import ScoringFailed, StoreCorrupt, StoreUnavailable
from app.pasts import Crowd, Past, Pasts
from app.quality import Quality
from app.store.states import SPOILT, UNREACHED
from app.telemetry import Metrics
from models.contract.interaction import UNKNOWN_MS, UNSEEN
from models.contract.queries import Queries

_USERS, _READ_WHOLE, _ITEMS = 256, 128, 512
"""Of a piece, at most: users; users, where a model reads whole windows; asks, but that all of one
user are in one piece, however many."""

_NOBODYS = Ask("")
"""A question that no model knows: no caller's id is empty."""

Asks = Sequence[tuple[Ask, ServedModel]]
Outcome = Prediction | Exception | Past
"""A past: the ask is to go on from there, alone."""


@dataclass(slots=True)
class _Part:
    """What one model has to do for a piece, and what came of it."""

    model: ServedModel
    users: dict[str, int] = field(default_factory=dict)  # user id -> row
    places: list[int] = field(default_factory=list)  # of its asks, in the call
    asks: list[Ask] = field(default_factory=list)
    of_user: list[int] = field(default_factory=list)  # row of each ask's user
    vector_of: dict[str, int] = field(default_factory=dict)  # user id -> the ask that it comes from
    crowd: Crowd | None = None
    queries: Queries | None = None  # of each ask
    score: ManyScore | Exception | None = None

    def add(self, place: int, ask: Ask) -> None:
        """Take an ask of the call."""
        assert ask.user_id is not None
        self.places.append(place)
        self.asks.append(ask)
        self.of_user.append(self.users.setdefault(ask.user_id, len(self.users)))

    def unread(self, user_id: str) -> Exception | None:
        """Return why a user's history could not be read; None where it was."""
        assert self.crowd is not None
        return _unread(int(self.crowd.standings.table["kept"][self.users[user_id]]))

    def add_vectors(self, user_ids: Sequence[str]) -> None:
        """Ask for the knowledge states of users besides, once all asks have been taken."""
        for user_id in user_ids:
            self.vector_of[user_id] = len(self.asks)
            self.asks.append(_NOBODYS)
            self.of_user.append(self.users.setdefault(user_id, len(self.users)))


class Bulk:
    """Answers asks that stand on stored histories, of models that keep states."""

    def __init__(
        self, pasts: Pasts, knowledge: ServedModel, quality: Quality, metrics: Metrics
    ) -> None:
        """`knowledge` is the model whose vector is the knowledge state."""
        self._pasts = pasts
        self._knowledge = knowledge
        self._quality = quality
        self._metrics = metrics

    def takes(self, ask: Ask, model: ServedModel) -> bool:
        """Say whether an ask of a model can be answered here."""
        if ask.history is not None or ask.user_id is None or not model.answers_many:
            return False
        return ask.knowledge_state is False or self._knowledge.answers_many

    async def predict(self, asks: Asks) -> list[Outcome]:
        """Return what becomes of each ask, in order; those of one user share all but the question.

        Where a run fails, whoever was in it is told to go on alone.
        """
        outcomes: dict[int, Outcome] = {}
        for done in await asyncio.gather(*(self._piece(asks, p) for p in _pieces(asks))):
            outcomes |= done
        return [outcomes[place] for place in range(len(asks))]

    async def _piece(self, asks: Asks, places: Sequence[int]) -> dict[int, Outcome]:
        parts = self._parts(asks, places)
        try:
            await asyncio.gather(*(self._read(part) for part in parts.values()))
        except Exception as exc:  # told to each, as if each had asked
            return dict.fromkeys(places, exc)
        await asyncio.gather(*(self._score(part) for part in parts.values()))
        outcomes: dict[int, Outcome] = {}
        alone: dict[str, Past] = {}
        for part in parts.values():
            outcomes |= self._outcomes(part, parts, alone)
        return outcomes

    def _parts(self, asks: Asks, places: Sequence[int]) -> dict[str, _Part]:
        """Return what each model has to do, by its `state_key`."""
        parts: dict[str, _Part] = {}
        knowledge = self._knowledge
        wanted: dict[str, None] = {}
        for place in places:
            ask, model = asks[place]
            if model.state_key not in parts:
                parts[model.state_key] = _Part(model)
            parts[model.state_key].add(place, ask)
            if ask.knowledge_state is not False and model is not knowledge:
                assert ask.user_id is not None
                wanted[ask.user_id] = None
        if wanted:
            parts.setdefault(knowledge.state_key, _Part(knowledge)).add_vectors([*wanted])
        return parts

    async def _read(self, part: _Part) -> None:
        part.crowd = await self._pasts.of_users([*part.users], part.model)

    async def _score(self, part: _Part) -> None:
        assert part.crowd is not None
        queries = part.model.vocabulary.queries(
            [ask.question_id for ask in part.asks],
            [ask.skill_ids for ask in part.asks],
            [UNKNOWN_MS if ask.asked_ms is None else ask.asked_ms for ask in part.asks],
        )
        part.queries = queries
        try:
            part.score = await self._pasts.score_all(
                part.model, queries, np.array(part.of_user), part.crowd
            )
        except Exception as exc:
            part.score = exc

    def _outcomes(
        self, part: _Part, parts: Mapping[str, _Part], alone: dict[str, Past]
    ) -> dict[int, Outcome]:
        """Return what became of a part's own asks, by their places in the call."""
        knowledge = parts.get(self._knowledge.state_key)
        outcomes: list[Outcome] = [*_predictions(part)]
        for i, found in enumerate(outcomes):
            ask = part.asks[i]
            if ask.knowledge_state is not False and isinstance(found, dict):
                assert knowledge is not None
                outcomes[i] = self._with_vector(found, part, i, knowledge)
            if isinstance(outcomes[i], ScoringFailed):
                assert ask.user_id is not None
                unread = (
                    knowledge and ask.user_id in knowledge.users and knowledge.unread(ask.user_id)
                )
                outcomes[i] = unread or _alone(ask, parts, alone)
        served = [i for i, one in enumerate(outcomes) if isinstance(one, dict)]
        self._note(part, served)
        self._count(part, served, outcomes)
        return dict(zip(part.places, outcomes, strict=True))

    def _note(self, part: _Part, served: Sequence[int]) -> None:
        """Note what has been said, to be compared with the answers; `served` of a part's asks."""
        if not served or not self._quality.share:
            return
        assert part.crowd is not None
        assert part.queries is not None
        assert isinstance(part.score, ManyScore)
        self._quality.note_all(
            part.model,
            part.crowd.user_ids,
            [ask.question_id for ask in part.asks],
            part.queries,
            np.array(part.of_user),
            part.crowd.standings,
            part.score.p_correct,
            served,
        )

    def _with_vector(
        self, found: Prediction, part: _Part, i: int, knowledge: _Part
    ) -> Prediction | Exception:
        """Add the knowledge state that the ask `i` of a part wants."""
        ask = part.asks[i]
        assert ask.user_id is not None
        if (unread := knowledge.unread(ask.user_id)) is not None:
            return unread
        if isinstance(knowledge.score, Exception):
            return knowledge.score
        assert knowledge.score is not None
        assert knowledge.score.knowledge_state is not None
        row = i if part is knowledge else knowledge.vector_of[ask.user_id]
        state, unknown = selected(
            knowledge.score.knowledge_state[row], ask.knowledge_state, self._knowledge.vocabulary
        )
        found["knowledge_state"] = state
        found["unseen"] = [*found["unseen"], *(u for u in unknown if u not in found["unseen"])]
        return found

    def _count(self, part: _Part, served: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Count predictions, as if each had been asked alone; `served` of a part's outcomes."""
        assert part.crowd is not None
        lengths = part.crowd.standings.table["kept"][[part.of_user[i] for i in served]]
        cold = int(np.count_nonzero(lengths == 0))
        for label, times in (("true", cold), ("false", len(served) - cold)):
            if times:
                self._metrics.predictions.labels(part.model.name, label).inc(times)
        self._metrics.history_length.observe_all(lengths.tolist())
        for outcome in outcomes:
            if isinstance(outcome, dict):
                for unseen in outcome["unseen"]:
                    self._metrics.unseen.labels(unseen.kind).inc()


def _pieces(asks: Asks) -> Iterator[list[int]]:
    """Yield the places of the asks of some users, in order of the users' first ones."""
    places: dict[str, list[int]] = {}
    for place, (ask, _) in enumerate(asks):
        assert ask.user_id is not None
        places.setdefault(ask.user_id, []).append(place)
    models = {id(model): model for _, model in asks}
    most = _READ_WHOLE if any(m.reads_whole_window for m in models.values()) else _USERS
    piece: list[int] = []
    users = 0
    for of_user in places.values():
        if piece and (users == most or len(piece) + len(of_user) > _ITEMS):
            yield piece
            piece, users = [], 0
        piece += of_user
        users += 1
    if piece:
        yield piece


def _predictions(part: _Part) -> list[Prediction | Exception]:
    """Return what a part's model says of its own asks, without knowledge states."""
    assert part.crowd is not None
    assert part.queries is not None
    score, own = part.score, len(part.places)
    table = part.crowd.standings.table[part.of_user[:own]]
    if not isinstance(score, ManyScore):
        assert score is not None
        return [_unread(kept) or score for kept in table["kept"].tolist()]
    model, vocabulary = ref_of(part.model), part.model.vocabulary
    columns = (
        part.asks,
        np.round(score.p_correct[:own].astype(np.float64), DECIMALS).tolist(),
        part.queries.question[:own].tolist(),
        table["kept"].tolist(),
        (table["start"] > 0).tolist(),
    )
    found: list[Prediction | Exception] = []
    for ask, p_correct, question, kept, truncated in zip(*columns, strict=False):
        if kept < 0 and (unread := _unread(kept)) is not None:
            found.append(unread)
            continue
        is_seen = question != UNSEEN and ask.skill_ids is None
        prediction: Prediction = {
            "p_correct": p_correct,
            "knowledge_state": None,
            "model": model,
            "history_length": kept,
            "truncated": truncated,
            "cold_start": kept == 0,
            "unseen": [] if is_seen else unseen_of(ask, question, vocabulary),
        }
        found.append(prediction)
    return found


def _unread(kept: int) -> Exception | None:
    """Return why a history could not be read, by what stands for how much of it is kept."""
    match kept:
        case _ if kept == SPOILT:
            return StoreCorrupt()
        case _ if kept == UNREACHED:
            return StoreUnavailable("the server that has this user does not answer as it should")
    return None


def _alone(ask: Ask, parts: Mapping[str, _Part], alone: dict[str, Past]) -> Past:
    """Return the past from which an ask goes on by itself; those of one user share it."""
    assert ask.user_id is not None
    if ask.user_id not in alone:
        crowds = {
            key: (part.crowd, part.users[ask.user_id])
            for key, part in parts.items()
            if part.crowd is not None and ask.user_id in part.users
        }
        alone[ask.user_id] = Past(
            standings={key: crowd.standing(row) for key, (crowd, row) in crowds.items()},
            sets={k: v for crowd, _ in crowds.values() for k, v in crowd.sets.items()},
            user_id=ask.user_id,
        )
    return alone[ask.user_id]
