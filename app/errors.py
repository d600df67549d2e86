"""What can go wrong, on purpose.

TracerError
├── ModelUnknown        no artifact of that name is served
├── UserUnknown         nothing was ever recorded for this user
├── RequestInvalid      the request contradicts itself, in a way its schema cannot say
├── Overloaded          too many ask, or wait, already; try again later
├── DeadlinePassed      the request took too long and was given up
├── ScoringFailed       the model could not be run on this window
├── StoreUnavailable    histories cannot be read or written just now
├── StoreFull           the store has no room for another answer
├── StoreReadOnly       the store takes no writes just now
├── StoreCorrupt        a stored history is not in a form we wrote
├── ArtifactInvalid     the folder is not a model we can serve
├── ProviderUnavailable the execution provider asked for cannot be had
└── NotReady            the service is starting or draining
"""

from __future__ import annotations


class TracerError(Exception):
    """A failure with a name. `code` is stable; the message names the value and what would do."""

    code = "error"
    retry_after_s: int | None = None


class ModelUnknown(TracerError):
    """No artifact of that name is served."""

    code = "model_unknown"

    def __init__(self, name: str, served: list[str]) -> None:
        super().__init__(
            f"model {name!r} is not served here; served: {', '.join(served) or 'none'}"
        )


class UserUnknown(TracerError):
    """Nothing was ever recorded for this user, where the answer would need something."""

    code = "user_unknown"


class RequestInvalid(TracerError):
    """The request contradicts itself, in a way its schema cannot say."""

    code = "request_invalid"


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
            "those with an event_id can be sent again without harm"
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
