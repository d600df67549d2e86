"""How each network finds its weights: a small dict from `fitted_by` to a fitter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from models.training import em, loop, members
from models.training.loop import EpochRecord


def fit(network: Any, *arguments: Any) -> Iterator[EpochRecord]:
    """Train a network by its own fitter; the arguments are those of `models.training.loop.fit`."""
    return FITTERS[network.fitted_by](network, *arguments)


FITTERS: dict[str, Callable[..., Iterator[EpochRecord]]] = {
    "gradient": loop.fit,
    "em": em.fit,
    "members": partial(members.fit, fitter=fit),
}
