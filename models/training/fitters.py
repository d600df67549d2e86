"""How each network finds its weights: a small dict from `fitted_by` to a fitter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from models.training import em, loop, members
from models.training.loop import EpochRecord


def fit(network: Any, *arguments: Any) -> Iterator[EpochRecord]:
    """Train a network by its own fitter; the arguments are those of `models.training.loop.fit`."""
    return FITTERS[network.fitted_by](network, *arguments)


def _fit_members(network: Any, config: Any, folder: Any, *rest: Any) -> Iterator[EpochRecord]:
    train, validation, *watch = rest
    return members.fit(network, config, folder, train, validation, (*watch, None)[0], fit)


FITTERS: dict[str, Callable[..., Iterator[EpochRecord]]] = {
    "gradient": loop.fit,
    "em": em.fit,
    "members": _fit_members,
}
