"""What goes over the wire. Requests are strict: no field is guessed, none is overlooked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Required
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
    with_config,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app import quality, rollout, service
from app.asks import Ask
from app.engine.model import ServedModel
from app.records import Answer, given_records
from app.store import histories
from models.contract.interaction import UNKNOWN_MS

MAX_ITEMS = 1000
MAX_HISTORY = 4096
MAX_SKILLS = 64
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
LONGEST_MS = 86_400_000  # a day

OutsideId = Annotated[
    str,
    StringConstraints(
        strict=True, min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"
    ),
]
"""An id as a caller gives it: any text of 1 to 256 characters, none of them a control character."""

SkillIds = Annotated[list[OutsideId], Field(min_length=1, max_length=MAX_SKILLS)]
Ms = Annotated[int, Field(ge=0, le=LATEST_MS)]
ElapsedMs = Annotated[int, Field(ge=0, le=LONGEST_MS)]


def _whole(value: Any) -> Any:
    """Read 1.0 as 1: in JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)


def unquoted(value: Any) -> Any:
    """Decode a path segment once; what is not UTF-8 is refused."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise PydanticCustomError("not_utf8", "UTF-8 is expected, percent-encoded") from None


PathId = Annotated[OutsideId, BeforeValidator(unquoted)]
"""An outside id in a path. Any character may stand in it, percent-encoded: `%2F` is a slash."""


class Body(BaseModel):
    """A request's body: frozen, strict, and refusing unknown fields."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Interaction(Body):
    """One answered question."""

    question_id: OutsideId = Field(description="The question answered.", examples=["q17"])
    correct: bool = Field(description="Whether it was answered right.")
    asked_ms: Annotated[Ms | None, Whole] = Field(
        None,
        description="When it was asked, Unix milliseconds; any clock whose differences are times.",
        examples=[1_700_000_000_000],
    )
    elapsed_ms: Annotated[ElapsedMs | None, Whole] = Field(
        None, description="Thinking time on this question.", examples=[21_000]
    )
    skill_ids: SkillIds | None = Field(
        None,
        description="The skills it exercised here; left out: the skills the model knows it by.",
        examples=[["fractions"]],
    )
    event_id: OutsideId | None = Field(
        None,
        description="Names this answer among the user's: sent again, it is not recorded again.",
        examples=["attempt-8812"],
    )

    def to_answer(self) -> Answer:
        """Return the answer meant."""
        return Answer(
            question_id=self.question_id,
            correct=self.correct,
            asked_ms=self.asked_ms,
            elapsed_ms=self.elapsed_ms,
            skill_ids=self.skill_ids,
            event_id=self.event_id,
        )


class Interactions(Body):
    """Answers of one user, oldest first."""

    interactions: list[Interaction] = Field(
        min_length=1, max_length=MAX_ITEMS, description="Oldest first; kept all or none."
    )


def _amending(schema: dict[str, Any]) -> None:
    """Say of an amendment that it has to say something: what is left out stays, null or not."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        del field["default"]


class Amendment(Body):
    """What one kept answer should have said; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra=_amending)

    correct: bool | SkipJsonSchema[None] = Field(None, description="Whether it was answered right.")
    asked_ms: Annotated[Ms | None, Whole] = Field(
        None, description="When it was asked; null: not known.", examples=[1_700_000_000_000]
    )
    elapsed_ms: Annotated[ElapsedMs | None, Whole] = Field(
        None, description="Thinking time; null: not known.", examples=[21_000]
    )

    @model_validator(mode="after")
    def _says_something(self) -> Amendment:
        given = self.model_fields_set
        if not given or ("correct" in given and self.correct is None):
            raise PydanticCustomError(
                "amendment_empty",
                "correct (true or false), asked_ms or elapsed_ms is needed, or several of them",
            )
        return self

    def to_amendment(self) -> histories.Amendment:
        """Return the amendment meant."""
        asked_ms, elapsed_ms = (
            UNKNOWN_MS if field in self.model_fields_set and value is None else value
            for field, value in (("asked_ms", self.asked_ms), ("elapsed_ms", self.elapsed_ms))
        )
        return histories.Amendment(self.correct, asked_ms, elapsed_ms)


def _branch(value: Any) -> str | None:
    return "~flag" if isinstance(value, bool) else "~list" if isinstance(value, list) else None


KnowledgeStateWanted = Annotated[
    Annotated[bool, Tag("~flag")]
    | Annotated[list[OutsideId], Field(max_length=MAX_HISTORY), Tag("~list")],
    Discriminator(
        _branch,
        custom_error_type="knowledge_state_type",
        custom_error_message="true, false or a list of skill ids is expected",
    ),
]


class PredictionRequest(Body):
    """A question put to a user."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
            ]
        }
    )

    user_id: OutsideId | None = Field(
        None,
        description="Whose stored history to stand on; not needed with an inline `history`.",
        examples=["u1"],
    )
    question_id: OutsideId = Field(description="The question to be asked.", examples=["q17"])
    model: OutsideId | None = Field(
        None,
        description="The model that predicts; see GET /models for the default.",
        examples=["dkt_asked"],
    )
    asked_ms: Annotated[Ms | None, Whole] = Field(
        None,
        description="When it will be asked, on the clock of the history; left out: not known.",
        examples=[1_700_000_060_000],
    )
    skill_ids: SkillIds | None = Field(
        None,
        description="The skills it will exercise; left out: the skills the model knows it by.",
        examples=[["fractions"]],
    )
    history: list[Interaction] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Stand on these answers, oldest first, instead of the stored ones. "
        "Nothing is read and nothing is kept.",
    )
    knowledge_state: KnowledgeStateWanted = Field(
        True, description="false leaves it out; a list of skill ids limits it to these."
    )

    @model_validator(mode="after")
    def _stands_on_something(self) -> PredictionRequest:
        if self.user_id is None and self.history is None:
            raise PydanticCustomError(
                "user_id_needed", "user_id is needed where no history is given"
            )
        return self

    def to_ask(self) -> Ask:
        """Return the ask meant."""
        fields: Any = self.model_dump(exclude_unset=True)
        return ask_of(fields)


@with_config(Body.model_config)
class AnswerFields(TypedDict, total=False):
    """An `Interaction`, as a dict."""

    question_id: Required[OutsideId]
    correct: Required[bool]
    asked_ms: Ms | None
    elapsed_ms: ElapsedMs | None
    skill_ids: SkillIds | None
    event_id: OutsideId | None


@with_config(Body.model_config)
class AskFields(TypedDict, total=False):
    """A `PredictionRequest`, as a dict.

    Whatever is valid here, and stands on something, is valid there and means the same; it takes a
    third of the time.
    """

    user_id: OutsideId | None
    question_id: Required[OutsideId]
    model: OutsideId | None
    asked_ms: Ms | None
    skill_ids: SkillIds | None
    history: Annotated[list[AnswerFields], Field(max_length=MAX_HISTORY)] | None
    knowledge_state: KnowledgeStateWanted


def stands_on_something(fields: AskFields) -> bool:
    """Say whether there is a history to stand on, or a user who may have one."""
    return fields.get("user_id") is not None or fields.get("history") is not None


def ask_of(fields: AskFields) -> Ask:
    """Return the ask meant."""
    history = fields.pop("history", None)
    ask = Ask(**fields)  # type: ignore[arg-type]  # it has none any more
    return ask if history is None else ask._replace(history=given_records(history))


class BatchRequest(Body):
    """Up to 1,000 questions put to any users."""

    # Items are validated one by one, so that a bad one stands as an error at its own place.
    items: list[Any] = Field(min_length=1, max_length=MAX_ITEMS)


class Unseen(BaseModel):
    """An id that the model has never seen."""

    kind: Literal["question", "skill"]
    id: str


class ModelRef(BaseModel):
    """Which artifact an answer comes from."""

    name: str = Field(examples=["dkt_asked"])
    version: str = Field(examples=["1"])


class Prediction(BaseModel):
    """How likely the user is to answer right, and what that stands on."""

    p_correct: float = Field(ge=0, le=1, description="Chance of a right answer.", examples=[0.731])
    knowledge_state: dict[str, float] | None = Field(
        description="Skill id to the chance of a right answer now, from the knowledge model, "
        "whichever model predicts; null when not wanted."
    )
    model: ModelRef
    history_length: int = Field(description="Interactions kept of this user, or given inline.")
    truncated: bool = Field(
        description="Part of the history took no part: it is longer than the model's window, "
        "or the store has dropped its oldest answers."
    )
    cold_start: bool = Field(description="There was no history: the answer is the model's prior.")
    unseen: list[Unseen] = Field(description="Ids of the request that the model does not know.")


class FieldError(BaseModel):
    """One place of a request that is not valid."""

    in_: Literal["body", "path", "query", "header"] = Field(alias="in")
    pointer: str = Field(
        description="JSON pointer to the place.", examples=["/items/3/question_id"]
    )
    value: str | int | bool | None = Field(description="What stood there, shortened.")
    detail: str = Field(description="What would do.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Stable name of the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="This case: the value, and what would do.")
    code: str = Field(description="The last part of `type`.")
    request_id: str | None = Field(description="Finds the request in the log.")
    errors: list[FieldError] | None = Field(
        None, description="With code request_invalid: the first places that are not valid."
    )
    retry_after_s: int | None = Field(None, description="When it makes sense to try again.")


class BatchAnswer(BaseModel):
    """One prediction or problem for each item, in order; a problem has a `status`."""

    items: list[Prediction | Problem]


HistoryVersion = Annotated[
    str,
    Field(
        description="Names this state of the user's history; the ETag of the answer, without its "
        "quotes. `00000000-0` where nothing is kept.",
        examples=["5f3a09c1-12"],
    ),
]


class Recorded(BaseModel):
    """What one call has recorded."""

    @staticmethod
    def content_of(done: histories.Recorded) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "recorded": done.recorded,
            "duplicates": done.duplicates,
            "history_length": done.length,
            "history_version": str(done.version),
        }

    recorded: int = Field(description="Answers added.")
    duplicates: int = Field(description="Answers left out: their event_id was there already.")
    history_length: int = Field(description="Interactions kept of this user now.")
    history_version: HistoryVersion


class NumberedInteraction(BaseModel):
    """One kept interaction."""

    number: int = Field(description="Counted from the user's very first answer, which is 0.")
    question_id: str | None = Field(description="null where the store has lost the text.")
    skill_ids: list[str] | None = Field(description="As named when recorded; null: none were.")
    correct: bool
    asked_ms: int | None
    elapsed_ms: int | None


class InteractionPage(BaseModel):
    """A run of kept interactions, oldest first."""

    @staticmethod
    def content_of(listing: service.Listing) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "interactions": [
                {"number": number, **answer._asdict()}
                for number, answer in enumerate(listing.answers, listing.first)
            ],
            "next": listing.next,
            "history_length": listing.history_length,
            "history_version": str(listing.version),
        }

    interactions: list[NumberedInteraction]
    next: int | None = Field(description="`start` of the next page; null at the end.")
    history_length: int = Field(description="Interactions kept of this user.")
    history_version: HistoryVersion


class Amended(BaseModel):
    """One kept interaction as it is after an amendment."""

    @staticmethod
    def content_of(done: service.Correction) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "interaction": {"number": done.number, **done.answer._asdict()},
            "history_version": str(done.version),
        }

    interaction: NumberedInteraction
    history_version: HistoryVersion


class ExportedInteraction(NumberedInteraction):
    """One kept interaction, with the key that its event left."""

    event_key: str | None = Field(description="Hash of its event_id, 16 hex digits; null: none.")


class ExportedState(BaseModel):
    """What a model has made of the user's answers, as it is kept."""

    model: str = Field(description="The model, its version and a hash of its files.")
    history: str = Field(description="The first part of the version of the history it is of.")
    start: int = Field(description="Number of the first answer that it stands on.")
    seen: int = Field(description="Number after the last one.")
    bytes: str = Field(description="The state, base64.")


class ExportedCall(BaseModel):
    """A call with an Idempotency-Key that was answered lately."""

    key: str = Field(description="Hash of its key, hex.")
    content: str = Field(description="Hash of what it asked, hex.")
    until_s: int = Field(description="Unix time from which on it is forgotten.")
    bytes: str = Field(description="What it was answered, base64 of MessagePack.")


class ExportedForecast(BaseModel):
    """A prediction that waits for its answer."""

    question_id: str | None = Field(description="null where nobody has answered it yet.")
    question_key: str = Field(description="Hash of the question id, 16 hex digits.")
    model_key: str = Field(description="Hash of the model, its version and its files.")
    noted_s: int = Field(description="Unix time at which it was kept.")
    p_correct: float
    skill: int = Field(description="The question's first skill, in the model's numbers.")
    lag: int = Field(description="Which bucket the time since the last answer fell into.")
    history: int = Field(description="Which bucket the number of answers before fell into.")


class Exported(BaseModel):
    """Everything that the store keeps of a user."""

    user_id: str
    history_version: HistoryVersion
    interactions: list[ExportedInteraction] = Field(
        description="Oldest first; also those that wait to be dropped."
    )
    states: list[ExportedState]
    calls: list[ExportedCall]
    forecasts: list[ExportedForecast] = Field(
        description="Oldest first; those whose time is over are among them until all are gone."
    )
    expires_in_ms: Mapping[str, int | None] = Field(
        description="How long interactions, states, calls and forecasts live on; null: for ever, "
        "or none."
    )


class SkillState(BaseModel):
    """One skill of a knowledge state."""

    id: str
    name: str | None = Field(description="null where the training data has no name for it.")
    probability: float = Field(ge=0, le=1, description="Chance of a right answer now.")
    answers: int = Field(description="Kept interactions that touched the skill.")


class KnowledgeState(BaseModel):
    """Every skill of the knowledge model."""

    @staticmethod
    def content_of(state: service.KnowledgeState) -> dict[str, Any]:
        """Return the JSON content."""
        columns = (state.skill_ids, state.names, state.probabilities, state.answers)
        return {
            "skills": [
                {"id": skill_id, "name": name, "probability": p, "answers": answers}
                for skill_id, name, p, answers in zip(*columns, strict=True)
            ],
            "as_of": state.as_of,
            "history_length": state.history_length,
            "truncated": state.truncated,
            "cold_start": state.cold_start,
            "history_version": str(state.version),
            "model": state.model,
        }

    skills: list[SkillState]
    as_of: int | None = Field(
        description="`asked_ms` of the newest interaction; null where there is none or no time."
    )
    history_length: int
    truncated: bool
    cold_start: bool = Field(description="Nothing is kept of this user: this is the prior.")
    history_version: HistoryVersion
    model: ModelRef


class Deleted(BaseModel):
    """Whether there was anything to delete."""

    deleted: bool


class ModelSummary(BaseModel):
    """One artifact served."""

    @staticmethod
    def content_of(model: ServedModel, default: str, knowledge: str) -> dict[str, Any]:
        """Return the JSON content; `default` and `knowledge` name models with these duties."""
        manifest = model.manifest
        return {
            "name": model.name,
            "version": model.version,
            "network": manifest.network,
            "is_default": model.name == default,
            "is_knowledge_model": model.name == knowledge,
            "window_length": model.window.length,
            "n_questions": manifest.n_questions,
            "n_skills": manifest.n_skills,
            "metrics": manifest.metrics,
        }

    name: str
    version: str
    network: str
    is_default: bool = Field(description="Predicts where a request names no model.")
    is_knowledge_model: bool = Field(description="Gives every knowledge state.")
    window_length: int = Field(description="Answers looked at, and the question itself, at most.")
    n_questions: int
    n_skills: int
    metrics: Mapping[str, Any] = Field(description="On held-out learners.")


class ModelList(BaseModel):
    """Every artifact served."""

    models: list[ModelSummary]


class ModelDetail(BaseModel):
    """One artifact: what it is, and how good."""

    @staticmethod
    def content_of(model: ServedModel) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "name": model.name,
            "version": model.version,
            "manifest": asdict(model.manifest),
            "card": model.card,
        }

    name: str
    version: str
    manifest: Mapping[str, Any] = Field(description="`manifest.json` of the artifact.")
    card: str = Field(description="The model card, Markdown.")


class Version(Body):
    """A version of a model."""

    version: OutsideId = Field(description="Its folder in the artifact folder.", examples=["4"])


class Offer(Version):
    """A candidate, and what it is for."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["share"], "properties": {"share": {"exclusiveMinimum": 0}}},
                {"required": ["compare"], "properties": {"compare": {"const": True}}},
            ]
        }
    )

    share: float = Field(0.0, ge=0, le=1, description="Of the users who are answered by it.")
    compare: bool = Field(False, description="Ask it beside the one served, whose answer goes out.")

    @model_validator(mode="after")
    def _is_for_something(self) -> Offer:
        if not (self.share or self.compare):
            raise PydanticCustomError(
                "offer_of_nothing", "a share above 0 or compare: true is needed"
            )
        return self


class CandidateOf(BaseModel):
    """The candidate of a model."""

    version: str
    share: float
    compare: bool


class Versions(BaseModel):
    """The versions of a model."""

    @staticmethod
    def content_of(lineup: rollout.Lineup) -> dict[str, Any]:
        """Return the JSON content."""
        candidate = lineup.candidate
        return {
            "current": lineup.current,
            "before": lineup.before,
            "candidate": candidate
            and {
                "version": candidate.model.version,
                "share": candidate.share,
                "compare": candidate.is_compared,
            },
            "there": lineup.there,
        }

    current: str = Field(description="Answers.")
    before: str | None = Field(description="Answered before it: what a roll back goes to.")
    candidate: CandidateOf | None
    there: list[str] = Field(description="In the artifact folder, oldest first.")


class ReliabilityBin(BaseModel):
    """Predictions that lie near each other."""

    predicted: float = Field(description="Their mean.")
    correct: float = Field(description="Share of their answers that were right.")
    answers: int


class VersionQuality(BaseModel):
    """How good the newest predictions of one version were."""

    @staticmethod
    def content_of(model: ServedModel, figures: quality.Figures) -> dict[str, Any]:
        """Return the JSON content; a figure that the answers do not give is null."""
        bins = figures.reliability
        return {
            "version": model.version,
            "answers": figures.answers,
            "total": figures.total,
            "since_s": figures.since_s,
            "until_s": figures.until_s,
            "auc": figures.auc,
            "log_loss": figures.log_loss,
            "calibration_error": figures.calibration_error,
            "correct_ratio": figures.correct_ratio,
            "predicted_mean": figures.predicted_mean,
            "reliability": [{"predicted": p, "correct": c, "answers": n} for p, c, n in bins],
            "expected": quality.expected_of(model),
            "drift": figures.drift,
        }

    version: str
    answers: int = Field(description="Predictions that the figures stand on, each with its answer.")
    total: int = Field(description="Predictions that were ever joined with their answers.")
    since_s: int | None = Field(description="Unix time of the first of these answers.")
    until_s: int | None = Field(description="Unix time of the last one.")
    auc: float | None = Field(description="null without both right and wrong answers.")
    log_loss: float | None = Field(description="In nats.")
    calibration_error: float | None = Field(description="Expected, over 15 bins of equal width.")
    correct_ratio: float | None = Field(description="Share of right answers.")
    predicted_mean: float | None
    reliability: list[ReliabilityBin] = Field(description="The bins that hold predictions.")
    expected: Mapping[str, float] = Field(
        description="The same figures on the test split, as the artifact says."
    )
    drift: Mapping[str, float] | None = Field(
        description="Population stability index beside the training split, by input: skill, lag, "
        "history, correct; null where the artifact does not say what that was like."
    )


class Quality(BaseModel):
    """How good the predictions of a model were, beside the answers that came."""

    @staticmethod
    def content_of(judged: list[service.Judged], how: quality.Quality) -> dict[str, Any]:
        """Return the JSON content."""
        served, *candidates = [VersionQuality.content_of(*one) for one in judged]
        return {
            "share": how.share,
            "within_s": how.within_s,
            "max_answers": how.most,
            "current": served,
            "candidate": candidates[0] if candidates else None,
        }

    share: float = Field(description="Of the users, whose predictions are compared.")
    within_s: int = Field(description="Longest time from a prediction to its answer.")
    max_answers: int = Field(description="Figures stand on so many of the newest answers, at most.")
    current: VersionQuality
    candidate: VersionQuality | None


class Liveness(BaseModel):
    """Whether the process should go on living."""

    alive: bool
    stuck_s: float | None = Field(
        description="Age of the oldest run that has not come back, 0 for none; null: for ever."
    )


class Readiness(BaseModel):
    """Whether requests may come, and the parts that decide it."""

    @staticmethod
    def content_of(found: service.Readiness) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "ready": found.is_ready,
            "reasons": found.reasons,
            "warnings": found.warnings,
            "draining": found.draining,
            "models": found.models,
            "provider": found.provider,
            "store": found.store,
        }

    ready: bool
    reasons: list[str] = Field(description="Why not.")
    warnings: list[str] = Field(
        description="How the store may lose what it has acknowledged, or why it takes no writes."
    )
    draining: bool
    models: list[ModelRef]
    provider: Mapping[str, Any] = Field(description="Requested, effective, and why they differ.")
    store: Mapping[str, Any]
