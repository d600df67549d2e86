"""The network that a configuration asks for, or what in the configuration does not go together."""

from __future__ import annotations

from typing import Any

from models.contract.vocabulary import Vocabulary
from models.nets import build
from models.training.checkpoint import network_config
from models.training.config import ConfigInvalid, TrainingConfig

_TOLD_ELSEWHERE = {"n_questions", "n_skills", "members"}


def network_for(config: TrainingConfig, vocabulary: Vocabulary) -> Any:
    """Build it; raise `ValueError` naming the option that is unknown, mistyped or out of bounds."""
    for one in (config, *config.members):
        if told := _TOLD_ELSEWHERE & set(one.model):
            raise ConfigInvalid(f"model.{min(told)}: comes from the data or from [[members]]")
    network = build(config.network, network_config(config, vocabulary))
    parts = [network, *getattr(network, "members", ())]
    for part, asked in zip(parts, [config, *config.members], strict=True):
        positions = getattr(part.config, "length", None)
        needed = {"window.length": config.window.length}  # an ensemble's members read its windows
        if part.fitted_by == "gradient" and part.is_causal:
            needed["fit.stretch"] = asked.fit.stretch
        for name, places in needed.items():
            if positions is not None and places > positions:
                raise ConfigInvalid(
                    f"{name} = {places}: at most the positions of {asked.network}, "
                    f"model.length = {positions}"
                )
    return network
