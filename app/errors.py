"""What can go wrong, on purpose.

TracerError
├── KeyMissing          a key is needed here, and none was shown
├── KeyUnknown          the key shown is none of ours
├── ScopeMissing        the key may not do this
├── CrossSite           a page of another site would have a browser do this
├── RateLimited         the key is used more often than it may be
├── KeysInvalid         the file of keys cannot be used
├── ModelUnknown        no artifact of that name is served
├── VersionUnknown      there is no such version of the model
├── VersionRefused      the version cannot be served; the one of before is
├── CandidateServed     the version is the one that is served: it cannot be a candidate
├── UserUnknown         nothing was ever recorded for this user
├── InteractionUnknown  no interaction of that number is kept
├── RequestInvalid      the request contradicts itself, in a way its schema cannot say
├── HistoryChanged      the history is not in the version that the caller means
├── IdempotencyKeyReused another call had this key
├── AnswerLate          an answer belongs before those that are there
├── Overloaded          too many ask, or wait, already; try again later
├── DeadlinePassed      the request took too long and was given up
├── ScoringFailed       the model could not be run on this window
├── StoreUnavailable    histories cannot be read or written just now
├── StoreFull           the store has no room for another answer
├── StoreReadOnly       the store takes no writes just now
├── StoreCorrupt        a stored history is not in a form we wrote
├── StoreNotDurable     the store may lose what it has acknowledged, and must not
├── ArtifactInvalid     the folder is not a model we can serve
├── ProviderUnavailable the execution provider asked for cannot be had
└── NotReady            the service is starting or draining
"""

from __future__ import annotations

import math


class TracerError(Exception):
    """A failure with a name. `code` is stable; the message names the value and what would do."""

    code = "error"
    retry_after_s: int | None = None


class KeyMissing(TracerError):
    """A key is needed here, and none was shown."""

    code = "key_missing"

    def __init__(self) -> None:
        super().__init__("send your key as the header `Authorization: Bearer KEY`")


class KeyUnknown(TracerError):
    """The key shown is none of ours."""

    code = "key_unknown"

    def __init__(self) -> None:
        super().__init__("this key does not hold here, or the header is not `Bearer KEY`")


class ScopeMissing(TracerError):
    """The key may not do this."""

    code = "scope_missing"

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(f"key {name!r} lacks the scope {scope!r}, which this needs")


class CrossSite(TracerError):
    """A page of another site would have a browser do this."""

    code = "cross_site"

    def __init__(self) -> None:
        super().__init__("what changes the service itself is not taken from other sites' pages")


class RateLimited(TracerError):
    """The key is used more often than it may be."""

    code = "rate_limited"

    def __init__(self, name: str, per_second: float, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(f"key {name!r} may be used {per_second:g} times a second")


class KeysInvalid(TracerError):
    """The file of keys cannot be used."""

    code = "keys_invalid"


class ModelUnknown(TracerError):
    """No artifact of that name is served."""

    code = "model_unknown"

    def __init__(self, name: str, served: list[str]) -> None:
        super().__init__(
            f"model {name!r} is not served here; served: {', '.join(served) or 'none'}"
        )


class VersionUnknown(TracerError):
    """There is no such version of the model."""

    code = "version_unknown"


class VersionRefused(TracerError):
    """The version cannot be served; the one of before is served on."""

    code = "version_refused"


class CandidateServed(TracerError):
    """The version is the one that is served: it cannot be a candidate."""

    code = "candidate_served"

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"version {version!r} of {name!r} answers already")


class UserUnknown(TracerError):
    """Nothing was ever recorded for this user, where the answer would need something."""

    code = "user_unknown"


class InteractionUnknown(TracerError):
    """No interaction of that number is kept of this user."""

    code = "interaction_unknown"

    def __init__(self) -> None:
        super().__init__(
            "none of that number is kept: it was dropped, or there never was one; "
            "GET the interactions for those that are"
        )


class RequestInvalid(TracerError):
    """The request contradicts itself, in a way its schema cannot say."""

    code = "request_invalid"


class HistoryChanged(TracerError):
    """The history is not in the version that the caller means."""

    code = "history_changed"

    def __init__(self) -> None:
        super().__init__(
            "nothing was done: the history is not as If-Match or If-None-Match say; "
            "GET it and decide anew"
        )


class IdempotencyKeyReused(TracerError):
    """Another call of this user had the same Idempotency-Key in the last 24 hours."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "nothing was done: another body came with this Idempotency-Key before; "
            "give every call a key of its own, and only its repetition the same"
        )


class AnswerLate(TracerError):
    """An answer belongs before those that are there, and this service takes none such."""

    code = "answer_late"

    def __init__(self, late: int) -> None:
        super().__init__(
            f"nothing was recorded: {late} of these questions were asked before one whose answer "
            "comes before theirs (KT_LATE_ANSWERS=refuse)"
        )
        self.late = late


class Overloaded(TracerError):
    """Too many ask already: refused at once instead of answered too late."""

    code = "overloaded"
    retry_after_s = 1


class DeadlinePassed(TracerError):
    """The request took longer than any may, and was given up."""

    code = "deadline_passed"
    retry_after_s = 1

    def __init__(self, after_s: float) -> None:
        super().__init__(
            f"given up after {after_s:g} s; answers that came with it may have been recorded: "
            "those with an event_id, or under an Idempotency-Key, can be sent again without harm"
        )


class ScoringFailed(TracerError):
    """The model could not be run on this window."""

    code = "scoring_failed"


class StoreUnavailable(TracerError):
    """Histories cannot be read or written just now."""

    code = "store_unavailable"
    retry_after_s = 1


class StoreFull(TracerError):
    """The store has no room for another answer; what it holds can still be read."""

    code = "store_full"
    retry_after_s = 30


class StoreReadOnly(TracerError):
    """The store takes no writes just now; what it holds can still be read."""

    code = "store_read_only"
    retry_after_s = 1


class StoreCorrupt(TracerError):
    """A stored history is not in a form we wrote."""

    code = "store_corrupt"

    def __init__(
        self, text: str = "the history of this user is not in a form that was written here"
    ) -> None:
        super().__init__(text)


class StoreNotDurable(TracerError):
    """The store may lose what it has acknowledged, and KT_REQUIRE_DURABLE forbids that."""

    code = "store_not_durable"


class ArtifactInvalid(TracerError):
    """The folder is not a model we can serve."""

    code = "artifact_invalid"


class ProviderUnavailable(TracerError):
    """The execution provider asked for cannot be had on this machine."""

    code = "provider_unavailable"


class NotReady(TracerError):
    """The service is starting, or draining before it stops."""

    code = "not_ready"
    retry_after_s = 1
