"""The networks: a small dict from a name to its configuration and its class.

Every network takes the tensors of `models.contract.window.INPUTS`, in that order, and returns the
logit (B,) of the last real place. One whose `is_causal` is true answers at every place as well. One
that says something of every skill has `with_knowledge`; one that carries a state from answer to
answer has `start_state`, `step` and `ask` besides, and a graph is exported of each of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

from torch import Tensor

from models.contract.typed import check_values
from models.nets.bkt import BKT, BKTConfig
from models.nets.dkt import DKT, DKTConfig
from models.nets.dkt_asked import DKTAsked, DKTAskedConfig
from models.nets.ensemble import Ensemble, EnsembleConfig
from models.nets.last_query import LastQuery, LastQueryConfig
from models.nets.layers.places import Places
from models.nets.saint import Saint, SaintConfig
from models.nets.saint_plus import SaintPlus, SaintPlusConfig
from models.nets.sakt import Sakt, SaktConfig

NETWORKS: dict[str, tuple[type, type]] = {
    "bkt": (BKTConfig, BKT),
    "dkt": (DKTConfig, DKT),
    "dkt_asked": (DKTAskedConfig, DKTAsked),
    "ensemble": (EnsembleConfig, Ensemble),
    "last_query": (LastQueryConfig, LastQuery),
    "saint": (SaintConfig, Saint),
    "saint_plus": (SaintPlusConfig, SaintPlus),
    "sakt": (SaktConfig, Sakt),
}


class Network(Protocol):
    """What the trainer and the exporter ask of a network, beside being a torch module."""

    @property
    def is_causal(self) -> bool:
        """One pass may answer at every place: no place reads a later one."""
        ...

    @property
    def fitted_by(self) -> Literal["gradient", "em", "members"]:
        """Which fitter of `models.training.fitters` finds its weights."""
        ...

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the logit of the last place, (B,)."""
        ...

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits of every place of right-padded windows."""
        ...


def build(name: str, config: Mapping[str, Any]) -> Any:
    """Return a new network; raise `ValueError` naming what in `name` or `config` would not do."""
    if name not in NETWORKS:
        raise ValueError(f"network {name!r} is not known; known: {', '.join(NETWORKS)}")
    config_class, network_class = NETWORKS[name]
    known = {f.name for f in dataclasses.fields(config_class)}
    if unknown := set(config) - known:
        raise ValueError(
            f"{name} has no option {', '.join(sorted(unknown))}; "
            f"its options: {', '.join(sorted(known))}"
        )
    check_values(config_class, config, "model.")
    for option, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"model.{option} = {value}: must be at least 1")  # all are sizes
        if option.endswith("dropout") and not 0 <= value < 1:
            raise ValueError(f"model.{option} = {value}: must be from 0 to below 1")
    return network_class(cast(Any, config_class)(**config))
